//! Random values of every kind of column, in their text form. Pure.

use rand::RngExt;
use rand::rngs::StdRng;

/// A value as text; `None` is NULL.
pub type Value = Option<String>;

/// How a column's values are drawn.
pub type Draw = fn(&mut StdRng) -> Value;

/// Keys per table: so few that transactions meet at them all the time.
pub const KEYS: u32 = 120;

/// Lengths of large texts: inline, out of line in one piece, and in many.
const LARGE_LENGTHS: [usize; 6] = [0, 20, 2_500, 6_000, 30_000, 150_000];

/// Characters of short texts: what quoting, escaping and encodings stumble over.
const CHARACTERS: [char; 20] = [
    'a', 'B', 'z', '0', '9', ' ', '\'', '"', '\\', ',', '\n', '\t', '|', '{', '}', 'é', 'ß', '中', '🦀',
    '\u{1}',
];

fn nullable(rng: &mut StdRng, value: impl FnOnce(&mut StdRng) -> String) -> Value {
    if rng.random_bool(0.1) { None } else { Some(value(rng)) }
}

pub fn integer(rng: &mut StdRng) -> Value {
    Some(rng.random_range(0..1_000).to_string())
}

pub fn short_text(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| {
        let length = rng.random_range(0..20);
        (0..length).map(|_| CHARACTERS[rng.random_range(0..CHARACTERS.len())]).collect()
    })
}

pub fn large_text(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| {
        let length = LARGE_LENGTHS[rng.random_range(0..LARGE_LENGTHS.len())];
        (0..length).map(|_| char::from(b'a' + rng.random_range(0..26))).collect()
    })
}

pub fn bytes(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| {
        let length = rng.random_range(0..40);
        (0..length).fold("\\x".to_owned(), |text, _| format!("{text}{:02x}", rng.random::<u8>()))
    })
}

pub fn boolean(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| rng.random::<bool>().to_string())
}

pub fn double(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| match rng.random_range(0..8) {
        0 => "NaN".to_owned(),
        1 => "-Infinity".to_owned(),
        2 => "-0".to_owned(),
        _ => rng.random_range(-1e12..1e12).to_string(),
    })
}

pub fn decimal(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| {
        format!("{}.{:04}", rng.random_range(-1_000_000_000_i64..1_000_000_000), rng.random_range(0..10_000))
    })
}

pub fn numeric(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| {
        let digits = rng.random_range(1..60);
        let whole: String = (0..digits).map(|_| char::from(b'1' + rng.random_range(0..9))).collect();
        format!("{whole}.{}", rng.random_range(0..1_000))
    })
}

pub fn timestamp(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| {
        format!(
            "{}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}",
            rng.random_range(1971..2200),
            rng.random_range(1..13),
            rng.random_range(1..29),
            rng.random_range(0..24),
            rng.random_range(0..60),
            rng.random_range(0..60),
            rng.random_range(0..1_000_000)
        )
    })
}

pub fn date(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| {
        format!(
            "{}-{:02}-{:02}",
            rng.random_range(1971..2200),
            rng.random_range(1..13),
            rng.random_range(1..29)
        )
    })
}

pub fn integers(rng: &mut StdRng) -> Value {
    let length = rng.random_range(0..6);
    let elements: Vec<String> = (0..length)
        .map(|_| if rng.random_bool(0.2) { "NULL".to_owned() } else { rng.random::<i32>().to_string() })
        .collect();
    Some(format!("{{{}}}", elements.join(",")))
}

pub fn words(rng: &mut StdRng) -> Value {
    let length = rng.random_range(0..4);
    let elements: Vec<String> = (0..length)
        .map(|_| {
            let text = short_text(rng).unwrap_or_default();
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        })
        .collect();
    Some(format!("{{{}}}", elements.join(",")))
}

pub fn json(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| {
        let text = short_text(rng).unwrap_or_default().replace('\u{1}', "");
        serde_json::json!({"n": rng.random::<i16>(), "t": text, "a": [1, null, {"b": rng.random::<bool>()}]})
            .to_string()
    })
}

pub fn mood(rng: &mut StdRng) -> Value {
    nullable(rng, |rng| ["glad", "sad", "so so"][rng.random_range(0..3)].to_owned())
}

/// A value in single quotes, or NULL: of whatever type its place has.
pub fn literal(value: &Value) -> String {
    match value {
        None => "null".to_owned(),
        Some(text) if text.contains('\\') => {
            format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
        }
        Some(text) => format!("'{}'", text.replace('\'', "''")),
    }
}

/// A row of a COPY in CSV form.
pub fn csv(values: &[Value]) -> String {
    let fields: Vec<String> = values
        .iter()
        .map(|value| {
            value.as_ref().map_or(String::new(), |text| format!("\"{}\"", text.replace('"', "\"\"")))
        })
        .collect();
    format!("{}\n", fields.join(","))
}
