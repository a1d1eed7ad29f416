//! What a call may use at most, and who is asked for so much before it is sent.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use toka_core::{Amounts, Money, Price, Tokens};
use toka_wire::{Endpoint, RequestFacts};

use crate::Providers;
use crate::candidates::Candidate;

/// Decides whether a call may be made, and waits until that is decided.
pub trait Gate: Debug + Send + Sync + 'static {
    /// Keeps `most` for the call of this number until its receipt is recorded. The future may be dropped before it is ready: then nothing
    /// is kept.
    ///
    /// # Errors
    /// Why the call may not be made, in words for whoever made it.
    fn admit(
        &self,
        call: u64,
        most: Amounts,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>>;

    /// Waits until a person has said whether a host that is not listed may be reached. Asked only where the agent declares that somebody is.
    ///
    /// # Errors
    /// Why not, in words for whoever wants to reach it.
    fn admit_host(
        &self,
        host: String,
        port: u16,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'static>>;
}

/// Bytes of a request to a token, where nobody has counted: fewer than it has, so that more is kept than it uses.
const BYTES_TO_A_TOKEN: u64 = 3;
/// Tokens that a model reads of what the provider keeps, where a request goes on with that.
const KEPT_ELSEWHERE: u64 = 128_000;
/// Tokens that a model writes at most where the request does not say.
const USUAL_OUTPUT: u64 = 32_768;
/// Most tokens that are kept for a call: no model has so many, and sums of money stay numbers.
const MOST: u64 = 1_000_000_000;

/// What a request may use at most, whichever candidate answers: an estimate of what is read, and all that may be written.
pub(crate) fn most(
    endpoint: Endpoint,
    facts: &RequestFacts,
    bytes: usize,
    candidates: &[Candidate],
    providers: &Providers,
) -> Amounts {
    let told = (bytes as u64).div_ceil(BYTES_TO_A_TOKEN);
    let input = if facts.is_stateful { told.saturating_add(KEPT_ELSEWHERE) } else { told };
    let output = match endpoint {
        Endpoint::Embeddings => 0,
        _ => facts.max_output_tokens.unwrap_or(USUAL_OUTPUT).saturating_mul(facts.answers).min(MOST),
    };
    let prices = candidates.iter().flat_map(|Candidate { provider, model }| {
        // A name that nobody has priced may stand for any model of a provider that has prices.
        let of_others = || providers.prices_of(&provider.name);
        providers.price_of(&provider.name, model).map_or_else(of_others, |price| vec![price])
    });
    let money = prices.filter_map(|price| dearest(&price, input, output)).max();
    Amounts::of_call(money.unwrap_or_default(), input.saturating_add(output))
}

/// What so many tokens cost when all that is read goes into a cache or comes from none, whichever is dearer.
fn dearest(price: &Price, input: u64, output: u64) -> Option<Money> {
    let written = Tokens { output: Some(output), ..Tokens::default() };
    let plain = Tokens { input: Some(input), ..written };
    let cached = Tokens { cached_write: Some(input), ..written };
    let for_an_hour = Tokens { cached_write_hour: Some(input), ..written };
    // Where a price ends with the length of the request, nobody knows what is beyond.
    [plain, cached, for_an_hour].iter().filter_map(|tokens| Price { until: None, ..*price }.of(tokens)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dearest_way_is_kept() {
        let price =
            Price { input: 3.0, output: 15.0, cached_write: Some(3.75), until: Some(10), ..Price::default() };
        assert_eq!(dearest(&price, 1_000_000, 1_000_000), Some(Money(18_750_000_000)));
        assert_eq!(dearest(&Price::default(), 1, 1), Some(Money(0)));
    }
}
