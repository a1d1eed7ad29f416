//! What tokens cost: a table with its date and its sources, and the prices of a person's own on top. A model that neither has is
//! unpriced, which is not free.

use std::collections::BTreeMap;

use toka_core::{Cost, Price, Tokens};

const TABLE: &str = include_str!("prices.tsv");

/// The prices that are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PriceTable {
    /// By `provider/model`; those of a person.
    own: BTreeMap<String, Price>,
}

impl PriceTable {
    /// The built-in table with a person's own prices on top, by `provider/model`.
    pub fn new(own: BTreeMap<String, Price>) -> Self {
        Self { own }
    }

    /// The day on which the built-in table was true.
    pub fn date() -> &'static str {
        TABLE.lines().next().and_then(|line| line.rsplit_once("date ")).map_or("", |(_, date)| date)
    }

    /// The price of a model. A name that goes on with a date or `latest` is the same model.
    pub fn price(&self, provider: &str, model: &str) -> Option<Price> {
        let own = self.own.get(&format!("{provider}/{model}")).copied();
        own.or_else(|| built_in(provider, model))
    }

    /// The prices of all models of a provider that are known.
    pub fn of_provider(&self, provider: &str) -> Vec<Price> {
        let own =
            self.own.iter().filter(|(name, _)| name.split_once('/').is_some_and(|(of, _)| of == provider));
        own.map(|(_, price)| *price)
            .chain(rows().filter(|(of, _, _)| *of == provider).map(|(_, _, price)| price))
            .collect()
    }

    /// What a call cost. `is_whole` says that the provider told its last figures.
    pub fn cost(&self, provider: &str, model: &str, tokens: &Tokens, is_whole: bool) -> Cost {
        if tokens.is_unknown() {
            return Cost::Unknown;
        }
        match self.price(provider, model).and_then(|price| price.of(tokens)) {
            Some(nano_usd) if is_whole => Cost::Exact { nano_usd },
            Some(nano_usd) => Cost::Estimate { nano_usd },
            None => Cost::Unpriced,
        }
    }
}

fn built_in(provider: &str, model: &str) -> Option<Price> {
    let same = rows().filter(|(of, name, _)| *of == provider && is_same_model(name, model));
    same.max_by_key(|(_, name, _)| name.len()).map(|(_, _, price)| price)
}

/// Provider, model and price of each row of the built-in table.
fn rows() -> impl Iterator<Item = (&'static str, &'static str, Price)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split('\t');
        let (provider, model) = (fields.next()?, fields.next()?);
        let mut number = || fields.next().and_then(|text| text.parse::<f64>().ok());
        let (input, cached_read) = (number(), number());
        let (cached_write, cached_write_hour, output, until) = (number(), number(), number(), number());
        let price = Price {
            input: input?,
            cached_read,
            cached_write,
            cached_write_hour,
            output: output.unwrap_or(0.0),
            until: until.map(|until| until as u64),
            // All three take half of it for batches.
            batch: Some(0.5),
        };
        Some((provider, model, price))
    })
}

fn is_same_model(known: &str, model: &str) -> bool {
    let Some(rest) = model.strip_prefix(known) else { return false };
    let is_date = |text: &str| text.len() >= 8 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    rest.is_empty() || rest.strip_prefix('-').is_some_and(|rest| rest == "latest" || is_date(rest))
}

#[cfg(test)]
mod tests {
    use toka_core::Money;

    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_price_and_it_has_a_date() {
        let lines: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() > 20);
        for line in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            assert_eq!(fields.len(), 8, "{line}");
            assert!(built_in(fields[0], fields[1]).is_some_and(|price| price.input > 0.0), "{line}");
            assert!(fields[2..].iter().all(|field| *field == "-" || field.parse::<f64>().is_ok()), "{line}");
        }
        assert_eq!(PriceTable::date().len(), "2026-11-29".len());
    }

    #[test]
    fn a_dated_name_is_the_same_model_and_a_longer_one_is_another() {
        let table = PriceTable::default();
        let input = |model| table.price("openai", model).map(|price| price.input);
        assert_eq!(input("gpt-5"), Some(1.25));
        assert_eq!(input("gpt-5-2025-08-07"), Some(1.25));
        assert_eq!(input("gpt-5-mini-2025-08-07"), Some(0.25));
        assert_eq!(input("gpt-5-turbo"), None);
        assert_eq!(input("gpt-50"), None);
        assert_eq!(table.price("lab", "gpt-5"), None, "another provider has prices of its own");
    }

    #[test]
    fn each_class_has_its_price_and_what_is_unknown_is_not_nothing() {
        let table = PriceTable::new(
            [("lab/m".to_owned(), Price { input: 1.0, output: 2.0, ..Price::default() })].into(),
        );
        let tokens = Tokens {
            input: Some(1_000_000),
            cached_read: Some(1_000_000),
            cached_write: Some(1_000_000),
            cached_write_hour: Some(1_000_000),
            output: Some(1_000_000),
            ..Tokens::default()
        };
        let opus = table.cost("anthropic", "claude-opus-4-5-20251101", &tokens, true);
        assert_eq!(opus, Cost::Exact { nano_usd: Money(46_750_000_000) });
        assert_eq!(table.cost("lab", "m", &tokens, false), Cost::Estimate { nano_usd: Money(6_000_000_000) });
        assert_eq!(table.cost("lab", "other", &tokens, true), Cost::Unpriced);
        assert_eq!(table.cost("lab", "m", &Tokens::default(), true), Cost::Unknown);
        let long = Tokens { input: Some(200_001), output: Some(1), ..Tokens::default() };
        assert_eq!(table.cost("google", "gemini-2.5-pro", &long, true), Cost::Unpriced);
    }
}
