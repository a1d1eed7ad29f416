//! Builds trees from parser events, and keeps count so that no tree outgrows its file.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use super::{Entry, Key, MAX_ALIASES, MAX_DEPTH, MAX_NODES, MAX_SCALAR, Node, Scalar, Value};
use crate::diagnostic::{Code, Diagnostic, FileId};

/// Why building stopped; the parser's own errors are told apart from ours.
pub(super) type Halt = Box<Diagnostic>;

/// The tree of one document while its events arrive.
pub(super) struct Builder<'a> {
    file: FileId,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    counts: &'a mut Counts,
    pub(super) root: Option<Rc<Node>>,
    pub(super) problems: Vec<Diagnostic>,
}

/// What has been used up: of its document's share, and by aliases over all documents of the file. What stands in a file for
/// itself is bounded by the file's length; a few bytes of aliases may stand for thousands of nodes each.
#[derive(Default)]
pub(super) struct Counts {
    nodes: usize,
    repeated: usize,
    aliases: usize,
}

struct Open {
    start: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Rc<Node>>),
    Map(OpenMap),
}

#[derive(Default)]
struct OpenMap {
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
    merged: Vec<Rc<Node>>,
    key: Option<Slot>,
}

/// Where the next value of a map goes.
enum Slot {
    Entry(Key),
    Merge,
    /// The key was refused; its value is read and dropped.
    Nowhere,
}

impl<'a> Builder<'a> {
    pub(super) fn new(file: FileId, counts: &'a mut Counts) -> Self {
        Self { file, open: Vec::new(), anchors: HashMap::new(), counts, root: None, problems: Vec::new() }
    }

    /// Begins the next document.
    pub(super) fn next_document(&mut self) {
        self.counts.nodes = 0;
        self.root = None;
    }

    pub(super) fn scalar(&mut self, scalar: Scalar, span: Range<usize>, anchor: usize) -> Result<(), Halt> {
        self.count(1, &span)?;
        if scalar.text.len() > MAX_SCALAR {
            return Err(self.too_complex(&span, format!("a value is longer than {} KiB", MAX_SCALAR >> 10)));
        }
        let node = Rc::new(Node { value: Value::Scalar(scalar), span, weight: 1 });
        self.finish(node, anchor);
        Ok(())
    }

    pub(super) fn open_list(&mut self, span: &Range<usize>, anchor: usize) -> Result<(), Halt> {
        self.open(span, anchor, Content::List(Vec::new()))
    }

    pub(super) fn open_map(&mut self, span: &Range<usize>, anchor: usize) -> Result<(), Halt> {
        self.open(span, anchor, Content::Map(OpenMap::default()))
    }

    fn open(&mut self, span: &Range<usize>, anchor: usize, content: Content) -> Result<(), Halt> {
        self.count(1, span)?;
        if self.open.len() == MAX_DEPTH {
            return Err(self.too_complex(span, format!("lists and maps are nested deeper than {MAX_DEPTH}")));
        }
        self.open.push(Open { start: span.start, anchor, content });
        Ok(())
    }

    pub(super) fn close(&mut self, end: Option<usize>) {
        let Some(open) = self.open.pop() else { return };
        let (value, weight) = match open.content {
            Content::List(items) => {
                let weight = items.iter().map(|item| item.weight).sum::<usize>();
                (Value::List(items), weight)
            }
            Content::Map(map) => {
                let entries = map.finish();
                let weight = entries.iter().map(|entry| entry.value.weight).sum::<usize>();
                (Value::Map(entries), weight)
            }
        };
        let end = end.or_else(|| last_byte(&value)).unwrap_or(open.start).max(open.start);
        let node = Node { value, span: open.start..end, weight: weight.saturating_add(1) };
        self.finish(Rc::new(node), open.anchor);
    }

    pub(super) fn alias(&mut self, anchor: usize, span: &Range<usize>) -> Result<(), Halt> {
        self.counts.aliases += 1;
        if self.counts.aliases > MAX_ALIASES {
            return Err(self.too_complex(span, format!("the file has more than {MAX_ALIASES} aliases")));
        }
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let message = "an alias stands inside of what it repeats";
            return Err(Box::new(Diagnostic::new(Code::Syntax, message).at(self.file, span.clone(), "")));
        };
        self.count(node.weight, span)?;
        self.counts.repeated = self.counts.repeated.saturating_add(node.weight);
        if self.counts.repeated > MAX_NODES {
            let message = format!("aliases repeat more than {MAX_NODES} keys and values in the file");
            return Err(self.too_complex(span, message));
        }
        // The place of an alias is its own, the places inside are those of the anchor.
        let node = Rc::new(Node { span: span.clone(), ..Node::clone(&node) });
        self.finish(node, 0);
        Ok(())
    }

    fn count(&mut self, weight: usize, span: &Range<usize>) -> Result<(), Halt> {
        self.counts.nodes = self.counts.nodes.saturating_add(weight);
        if self.counts.nodes > MAX_NODES {
            let message = format!("a document has more than {MAX_NODES} keys and values, aliases expanded");
            return Err(self.too_complex(span, message));
        }
        Ok(())
    }

    fn too_complex(&self, span: &Range<usize>, message: String) -> Halt {
        Box::new(Diagnostic::new(Code::TooComplex, message).at(
            self.file,
            span.clone(),
            "reading stopped here",
        ))
    }

    fn finish(&mut self, node: Rc<Node>, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let problem = match self.open.last_mut().map(|open| &mut open.content) {
            None => {
                self.root = Some(node);
                None
            }
            Some(Content::List(items)) => {
                items.push(node);
                None
            }
            Some(Content::Map(map)) => map.take(node, self.file),
        };
        self.problems.extend(problem);
    }
}

impl OpenMap {
    /// Takes a node as the next key, or as the value of the key before it.
    fn take(&mut self, node: Rc<Node>, file: FileId) -> Option<Diagnostic> {
        match self.key.take() {
            None => return self.take_key(&node, file),
            Some(Slot::Entry(key)) => self.entries.push(Entry { key, value: node }),
            Some(Slot::Merge) => self.merged.push(node),
            Some(Slot::Nowhere) => {}
        }
        None
    }

    fn take_key(&mut self, node: &Rc<Node>, file: FileId) -> Option<Diagnostic> {
        let Value::Scalar(scalar) = &node.value else {
            self.key = Some(Slot::Nowhere);
            let message = format!("a key is a word, not {}", node.describe());
            return Some(Diagnostic::new(Code::WrongType, message).at(file, node.span.clone(), "not a key"));
        };
        if scalar.text == "<<" {
            self.key = Some(Slot::Merge);
            return None;
        }
        let key = Key { text: scalar.text.clone(), span: node.span.clone() };
        if let Some(first) = self.places.get(&key.text) {
            let first = self.entries[*first].key.span.clone();
            self.key = Some(Slot::Nowhere);
            let message = format!("the key `{}` stands twice in one map", super::scalar::shorten(&key.text));
            let problem = Diagnostic::new(Code::DuplicateKey, message).at(file, key.span, "the second time");
            return Some(problem.at(file, first, "the first time").help("remove one of them"));
        }
        self.places.insert(key.text.clone(), self.entries.len());
        self.key = Some(Slot::Entry(key));
        None
    }

    /// The entries, with those of merged maps (`<<`, <https://yaml.org/type/merge.html>) behind its own.
    fn finish(mut self) -> Vec<Entry> {
        for node in std::mem::take(&mut self.merged) {
            self.merge(&node);
        }
        self.entries
    }

    fn merge(&mut self, node: &Node) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    if !self.places.contains_key(&entry.key.text) {
                        self.places.insert(entry.key.text.clone(), self.entries.len());
                        self.entries.push(entry.clone());
                    }
                }
            }
            Value::List(items) => items.iter().for_each(|item| self.merge(item)),
            Value::Scalar(_) => {}
        }
    }
}

/// Where the last thing in a list or map ends: the parser's own end of a block is some lines later.
fn last_byte(value: &Value) -> Option<usize> {
    match value {
        Value::List(items) => items.last().map(|item| item.span.end),
        Value::Map(entries) => entries.last().map(|entry| entry.value.span.end.max(entry.key.span.end)),
        Value::Scalar(_) => None,
    }
}
