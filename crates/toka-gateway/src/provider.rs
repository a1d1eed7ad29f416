//! Providers, as they were resolved from what a person says: where they are, what they speak, and the key that no agent sees.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use hyper::body::Bytes;
use toka_core::{Cost, ModelName, Money, Price, Tokens, Wire};
use toka_wire::PriceTable;
use toka_wire::batch::BatchApi;
use toka_wire::wire::credentials;
use tokio::sync::Semaphore;

use crate::cooldown::{Cooldowns, Rest};
use crate::script::Script;

/// A key. It is shown to nobody: neither in a text nor in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// A key without the blanks around it, such as the line end of its file; `None` when nothing is left, or when it cannot stand in a
    /// header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_visible.then(|| Self(text.to_owned()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Puts it where an API wants it.
    ///
    /// # Errors
    /// When it cannot stand in a header.
    pub(crate) fn put(&self, headers: &mut HeaderMap, wire: Wire) -> Result<(), ()> {
        let (name, prefix) = credentials(wire);
        let mut value = HeaderValue::try_from(format!("{prefix}{}", self.0)).map_err(drop)?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }

    /// Whether bytes hold it.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        memchr::memmem::find(bytes, self.0.as_bytes()).is_some()
    }

    /// The same bytes with something else in its place.
    pub(crate) fn masked(&self, bytes: Bytes) -> Bytes {
        if !self.is_in(&bytes) {
            return bytes;
        }
        let (mut written, mut from) = (Vec::with_capacity(bytes.len()), 0);
        for at in memchr::memmem::find_iter(&bytes, self.0.as_bytes()) {
            written.extend_from_slice(&bytes[from..at]);
            written.extend_from_slice(b"(a key)");
            from = at + self.0.len();
        }
        written.extend_from_slice(&bytes[from..]);
        Bytes::from(written)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a key)")
    }
}

/// How a provider is asked.
#[derive(Debug)]
pub enum Transport {
    /// Over HTTP, at this URL without its version.
    Http {
        /// The URL.
        url: String,
        /// Its key; one of the person's own machine may need none.
        key: Option<Key>,
    },
    /// It is a script.
    Script(Script),
}

/// A provider that can be asked.
#[derive(Debug)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub wires: Vec<Wire>,
    /// How it is asked.
    pub transport: Transport,
    /// Longest time without a word of the answer.
    pub silence: Duration,
    /// Most calls at one time; `None` for as many as come.
    pub most: Option<u32>,
    places: Arc<Semaphore>,
    /// Batch interfaces that it turned out not to have.
    lacking: Mutex<BTreeSet<(BatchApi, String)>>,
    /// How often each fault of a script has happened.
    pub(crate) faults: Mutex<BTreeMap<(usize, usize), u32>>,
}

impl Provider {
    /// Longest silence where nobody says otherwise: models think for minutes.
    pub const SILENCE: Duration = Duration::from_secs(600);

    /// A provider; `most` is the number of calls at one time.
    pub fn new(
        name: String,
        wires: Vec<Wire>,
        transport: Transport,
        most: Option<u32>,
        silence: Duration,
    ) -> Self {
        let places = most.map_or(Semaphore::MAX_PERMITS, |most| most as usize);
        let places = Arc::new(Semaphore::new(places));
        Self {
            name,
            wires,
            transport,
            silence,
            most,
            places,
            lacking: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// Whether it speaks this language.
    pub fn speaks(&self, wire: Wire) -> bool {
        self.wires.contains(&wire)
    }

    /// Whether it turned out not to have this batch interface for a model.
    pub(crate) fn lacks_batches(&self, api: BatchApi, model: &str) -> bool {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).contains(&place_of(api, model))
    }

    /// It has not this one: calls are made one by one from now on.
    pub(crate) fn remember_no_batches(&self, api: BatchApi, model: &str) {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).insert(place_of(api, model));
    }

    pub(crate) fn places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.places)
    }
}

/// Where a batch interface is: Gemini's has a path for each model.
fn place_of(api: BatchApi, model: &str) -> (BatchApi, String) {
    (api, if api == BatchApi::Gemini { model.to_owned() } else { String::new() })
}

/// All providers of a project, the default chain, and the prices.
#[derive(Debug, Default)]
pub struct Providers {
    /// By the order in which a bare name is looked for.
    all: Vec<Arc<Provider>>,
    chain: Vec<ModelName>,
    /// Providers that a person names and that cannot be asked, with the reason.
    unusable: BTreeMap<String, String>,
    prices: PriceTable,
    cooldowns: Mutex<Cooldowns>,
}

impl Providers {
    /// Those that can be asked, and why others cannot.
    pub fn new(
        all: Vec<Provider>,
        chain: Vec<ModelName>,
        unusable: BTreeMap<String, String>,
        prices: PriceTable,
    ) -> Self {
        let all = all.into_iter().map(Arc::new).collect();
        Self { all, chain, unusable, prices, cooldowns: Mutex::default() }
    }

    /// Those that can be asked.
    pub fn all(&self) -> &[Arc<Provider>] {
        &self.all
    }

    /// The default chain.
    pub fn chain(&self) -> &[ModelName] {
        &self.chain
    }

    /// Why providers cannot be asked, by their names.
    pub fn unusable(&self) -> &BTreeMap<String, String> {
        &self.unusable
    }

    /// Why a model of a named provider cannot be asked, if that is so. Of a bare name it says nothing: who has it depends on the API.
    pub fn why_not(&self, name: &ModelName) -> Option<String> {
        let of = name.provider.as_deref()?;
        let unknown = || Some("no provider has this name".to_owned()).filter(|_| self.named(of).is_none());
        self.unusable.get(of).cloned().or_else(unknown)
    }

    /// What tokens of a model cost, where its provider is named and somebody tells. A script that nobody has priced costs nothing.
    pub fn price(&self, name: &ModelName) -> Option<Price> {
        self.price_of(name.provider.as_deref()?, &name.model)
    }

    /// All prices that are known of a provider's models.
    pub(crate) fn prices_of(&self, provider: &str) -> Vec<Price> {
        if self.is_script(provider) { Vec::new() } else { self.prices.of_provider(provider) }
    }

    pub(crate) fn price_of(&self, provider: &str, model: &str) -> Option<Price> {
        let of_script = || Some(Price::default()).filter(|_| self.is_script(provider));
        self.prices.price(provider, model).or_else(of_script)
    }

    fn is_script(&self, provider: &str) -> bool {
        self.named(provider).is_some_and(|provider| matches!(provider.transport, Transport::Script(_)))
    }

    /// What a call cost. A script that nobody has priced costs nothing; everybody else does.
    pub(crate) fn cost(&self, provider: &str, model: &str, tokens: &Tokens, is_whole: bool) -> Cost {
        match self.prices.cost(provider, model, tokens, is_whole) {
            Cost::Unpriced if self.is_script(provider) => Cost::Exact { nano_usd: Money(0) },
            cost => cost,
        }
    }

    /// What a call through a batch interface cost.
    pub(crate) fn batched_cost(&self, provider: &str, model: &str, tokens: &Tokens) -> Cost {
        if tokens.is_unknown() {
            return Cost::Unknown;
        }
        let price = self.price_of(provider, model).map(Price::batched);
        match price.and_then(|price| price.of(tokens)) {
            Some(nano_usd) => Cost::Exact { nano_usd },
            None => Cost::Unpriced,
        }
    }

    /// The keys of all, by the names of their providers.
    pub(crate) fn keys(&self) -> Vec<(String, &str)> {
        let mut keys = Vec::new();
        for provider in &self.all {
            if let Transport::Http { key: Some(key), .. } = &provider.transport {
                keys.push((provider.name.clone(), key.expose()));
            }
        }
        keys
    }

    /// Who is not asked for a while.
    pub fn resting(&self) -> Vec<Rest> {
        self.cooldowns().all(Instant::now())
    }

    /// Asks those who rest again from now on; they are returned.
    pub fn wake(&self) -> Vec<Rest> {
        let mut cooldowns = self.cooldowns();
        let resting = cooldowns.all(Instant::now());
        cooldowns.clear();
        resting
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Provider>> {
        self.all.iter().find(|provider| provider.name == name)
    }

    pub(crate) fn cooldowns(&self) -> MutexGuard<'_, Cooldowns> {
        self.cooldowns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The providers of a project at the moment: a person may say others while agents run.
#[derive(Debug, Default)]
pub struct Current(Mutex<Arc<Providers>>);

impl Current {
    /// These, for now.
    pub fn new(providers: Arc<Providers>) -> Self {
        Self(Mutex::new(providers))
    }

    /// Those that there are now; what was begun with them goes on with them.
    pub fn get(&self) -> Arc<Providers> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Others from now on.
    pub fn set(&self, providers: Arc<Providers>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = providers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown_and_must_fit_a_header() {
        let key = Key::new(" sk-secret\n").expect("a key");
        assert_eq!(key.expose(), "sk-secret");
        assert!(!format!("{key:?}").contains("secret"));
        assert_eq!(key.masked(Bytes::from_static(b"a sk-secret, sk-secret")), "a (a key), (a key)");
        for no_key in ["", " \n", "a b", "line\nother", "\u{7f}", "schlüssel"] {
            assert_eq!(Key::new(no_key), None, "{no_key:?}");
        }
    }
}
