//! Asks the model, and puts its answer on record.

use serde_json::{Map, Value};
use toka_core::transcript::{AskedEntry, CallEntry, EntryKind};
use toka_core::{SessionNews, SessionState};
use toka_wire::said::{self, Answer, Piece, Stop};

use super::{Driver, Halt, unless_interrupted};
use crate::model::{self, Heard};
use crate::request::{Settings, asked, conversation};

/// How often in a row a model is told that its answer is of no use.
const NUDGES: u32 = 3;

impl Driver<'_> {
    /// Asks the model, and puts its answer on record.
    pub(super) async fn ask(&mut self) -> Result<(), Halt> {
        self.make_room().await?;
        self.go_on().await;
        self.enter(SessionState::Thinking)?;
        let mut asked =
            unless_interrupted(self.interrupts.clone(), self.request()).await.ok_or(Halt::Interrupted)?;
        if asked.as_ref().is_err_and(|why| why.is_too_large) && self.make_more_room().await? {
            asked =
                unless_interrupted(self.interrupts.clone(), self.request()).await.ok_or(Halt::Interrupted)?;
        }
        let (model::Asked { answer, model, call, wire }, asked) =
            asked.map_err(|why| Halt::Turn(format!("the model gives no answer: {why}")))?;
        let answer = self.masked(answer);
        let (calls, blocks) = self.name_calls(&answer);
        if !answer.text.trim().is_empty() {
            self.steps.say(&answer.text);
            let first = answer.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            self.tell_status(first.trim());
        }
        let nudge = nudge(&answer);
        let Answer { text, thinking, tokens, stop, .. } = answer;
        let mut kinds = vec![EntryKind::Assistant {
            model,
            wire,
            call,
            text,
            thinking,
            calls,
            blocks,
            tokens,
            asked: Some(asked),
        }];
        self.nudges = if nudge.is_some() { self.nudges + 1 } else { 0 };
        let is_given_up = self.nudges > NUDGES;
        kinds.extend(nudge.filter(|_| !is_given_up).map(|text| EntryKind::Notice { text }));
        self.add(kinds, true).await?;
        match stop {
            Stop::Refused => Err(Halt::Turn("the model, or its provider, refuses".to_owned())),
            _ if is_given_up => {
                Err(Halt::Turn(format!("the model has given {NUDGES} answers in a row that are of no use")))
            }
            _ => Ok(()),
        }
    }

    /// Sends the request that follows from the transcript.
    async fn request(&self) -> Result<(model::Asked, AskedEntry), model::NoAnswer> {
        let (wire, model) = self.asker.first().map_err(model::NoAnswer::of)?;
        self.tell_status(&format!("asks {model}"));
        let config = &self.shared.config;
        let settings = Settings {
            model: &model,
            wire,
            // Sealed blocks must not reach another one, and any of several may answer.
            seals: self.asker.candidates(wire).len() == 1,
            tools: &self.definitions,
            max_output_tokens: config.max_output_tokens,
            temperature: config.temperature,
        };
        let conversation = conversation(&self.entries, &settings);
        let until = self.entries.last().map_or(0, |entry| entry.id);
        let recorded = asked(&conversation, &settings, until);
        let mut pieces = Pieces::default();
        let answered = model::ask(&self.asker, (wire, &model), &conversation, |heard| {
            pieces.hear(heard, self);
        });
        let answered = answered.await;
        pieces.end(self);
        // Another candidate may have answered, which is asked in the same words.
        answered.map(|answered| (answered, recorded))
    }

    /// An answer without secrets: a model that has got hold of one keeps it out of the transcript, and is not told it again.
    fn masked(&self, answer: Answer) -> Answer {
        let masked = |text: &str| self.asker.masked(text.to_owned());
        let arguments = |arguments: &Result<Map<String, Value>, String>| match arguments {
            Ok(arguments) => {
                let written = masked(&Value::Object(arguments.clone()).to_string());
                serde_json::from_str(&written).map_err(|_| written)
            }
            Err(nonsense) => Err(masked(nonsense)),
        };
        let calls: Vec<said::Call> = answer
            .calls
            .iter()
            .map(|call| said::Call { arguments: arguments(&call.arguments), ..call.clone() })
            .collect();
        let (text, thinking) = (masked(&answer.text), masked(&answer.thinking));
        let is_clean = text == answer.text && thinking == answer.thinking && calls == answer.calls;
        let blocks = if is_clean { answer.blocks } else { Vec::new() };
        Answer { text, thinking, calls, blocks, ..answer }
    }

    /// The calls of an answer with names that are unique in the session, and its blocks, where those have the same names.
    fn name_calls(&self, answer: &Answer) -> (Vec<CallEntry>, Vec<Value>) {
        let known = |id: &str| {
            self.entries.iter().any(|entry| match &entry.kind {
                EntryKind::Assistant { calls, .. } => calls.iter().any(|call| call.id == id),
                _ => false,
            })
        };
        let number = self.entries.last().map_or(0, |entry| entry.id) + 1;
        let mut is_renamed = false;
        let mut named: Vec<CallEntry> = Vec::new();
        for (at, said::Call { id, name, arguments }) in answer.calls.iter().enumerate() {
            let is_taken = |id: &str| known(id) || named.iter().any(|call| call.id == id);
            is_renamed |= !id.is_empty() && is_taken(id);
            let own = || (at..).map(|at| format!("call_{number}_{at}")).find(|id| !is_taken(id));
            let id = match id.is_empty() || is_taken(id) {
                true => own().unwrap_or_default(),
                false => id.clone(),
            };
            let (arguments, nonsense) = match arguments {
                Ok(arguments) => (arguments.clone(), None),
                Err(nonsense) => (Map::new(), Some(nonsense.clone())),
            };
            named.push(CallEntry { id, name: name.clone(), arguments, nonsense });
        }
        // What is not whole, or not as it came, goes back in our words.
        let is_whole = matches!(answer.stop, Stop::End | Stop::Tools);
        let makes_sense = named.iter().all(|call| call.nonsense.is_none());
        let keeps = !is_renamed && is_whole && makes_sense;
        (named, if keeps { answer.blocks.clone() } else { Vec::new() })
    }
}

/// What a model is told whose answer is of no use.
fn nudge(answer: &Answer) -> Option<String> {
    if !answer.calls.is_empty() {
        return None;
    }
    if let Stop::Other(word) = &answer.stop {
        return Some(format!("Your answer broke off ({word}). Go on."));
    }
    if answer.stop == Stop::Length {
        return Some("Your answer was cut, for it was too long. Go on, in smaller steps.".to_owned());
    }
    answer
        .text
        .trim()
        .is_empty()
        .then(|| "You said nothing. Use a tool, or end with a short account of what you did.".to_owned())
}

/// Tells those who look on what a model says, piece by piece. What may be the begin of a secret is held back until it is clear.
#[derive(Default)]
struct Pieces {
    text: String,
    thinking: String,
}

impl Pieces {
    fn hear(&mut self, heard: Heard, driver: &Driver<'_>) {
        match heard {
            Heard::Piece(Piece::Text(piece)) => {
                let text = driver.asker.masked_piece(&mut self.text, &piece);
                tell_text(driver, text);
            }
            Heard::Piece(Piece::Thinking(piece)) => {
                let text = driver.asker.masked_piece(&mut self.thinking, &piece);
                tell_thinking(driver, text);
            }
            Heard::Piece(Piece::Call(_)) => {}
            Heard::Again => {
                *self = Self::default();
                driver.shared.tell(SessionNews::ResponseRestarted);
            }
        }
    }

    /// Nothing follows what is held back.
    fn end(self, driver: &Driver<'_>) {
        tell_thinking(driver, driver.asker.masked(self.thinking));
        tell_text(driver, driver.asker.masked(self.text));
    }
}

fn tell_text(driver: &Driver<'_>, text: String) {
    if !text.is_empty() {
        driver.shared.tell(SessionNews::ResponseChunk { text });
    }
}

fn tell_thinking(driver: &Driver<'_>, text: String) {
    if !text.is_empty() {
        driver.shared.tell(SessionNews::ThinkingChunk { text });
    }
}
