//! Both forms of a value become the same bytes, and no bytes at all make the decoders panic.
//!
//! The encoders here are written from PostgreSQL's documentation and share nothing with the decoders.

use jiff::civil::{Date, DateTime, date};
use proptest::prelude::*;

use super::{Conversion, Fault, Field, TimeRange};
use crate::column::Column;

/// A value and both its forms.
#[derive(Debug, Clone)]
struct Sample {
    text: Vec<u8>,
    binary: Vec<u8>,
}

impl Sample {
    fn new(text: impl Into<Vec<u8>>, binary: impl Into<Vec<u8>>) -> Self {
        Self { text: text.into(), binary: binary.into() }
    }
}

fn encode(conversion: &Conversion, field: Field<'_>) -> Result<Vec<u8>, Fault> {
    let mut column = Column::new(conversion, true, TimeRange::WIDE);
    column.push(field)?;
    let mut out = Vec::new();
    column.encode(&mut out);
    Ok(out)
}

fn both(conversion: &Conversion, sample: &Sample) -> Result<Vec<u8>, Fault> {
    let text = encode(conversion, Field::Text(&sample.text));
    let binary = encode(conversion, Field::Binary(&sample.binary));
    assert_eq!(text, binary, "{conversion:?} {}", String::from_utf8_lossy(&sample.text));
    text
}

fn float_text(value: f64, shortest: String) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => shortest,
    }
}

/// The binary form of a decimal number, from its text.
fn numeric_binary(text: &str) -> Vec<u8> {
    let special = |sign: u16| [0u16, 0, sign, 0].iter().flat_map(|n| n.to_be_bytes()).collect();
    match text {
        "NaN" => return special(0xc000),
        "Infinity" => return special(0xd000),
        "-Infinity" => return special(0xf000),
        _ => {}
    }
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let padded = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let mut groups: Vec<u16> = (whole.clone() + &padded)
        .as_bytes()
        .chunks(4)
        .map(|g| std::str::from_utf8(g).unwrap().parse().unwrap())
        .collect();
    let mut weight = whole.len() as i16 / 4 - 1;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let zero = groups.is_empty();
    let mut out = Vec::new();
    out.extend((groups.len() as u16).to_be_bytes());
    out.extend((if zero { 0 } else { weight }).to_be_bytes());
    out.extend((if negative && !zero { 0x4000u16 } else { 0 }).to_be_bytes());
    out.extend((fraction.len() as u16).to_be_bytes());
    groups.iter().for_each(|group| out.extend(group.to_be_bytes()));
    out
}

fn numeric_sample(text: &str) -> Sample {
    Sample::new(text, numeric_binary(text))
}

/// A number of at most these digits before and after the point, written as `numeric_out` writes it.
fn numeric_text(whole: usize, fraction: usize) -> BoxedStrategy<String> {
    let digits =
        move |most: usize| proptest::collection::vec(prop_oneof![3 => 0u8..10, 1 => Just(0)], 0..=most);
    (any::<bool>(), digits(whole), digits(fraction))
        .prop_map(|(negative, whole, fraction)| {
            let text = |digits: &[u8]| digits.iter().map(|d| char::from(b'0' + d)).collect::<String>();
            let (whole, fraction) = (text(&whole), text(&fraction));
            let whole = whole.trim_start_matches('0');
            let whole = if whole.is_empty() { "0" } else { whole };
            let point = if fraction.is_empty() { "" } else { "." };
            let zero = whole == "0" && fraction.bytes().all(|b| b == b'0');
            format!("{}{whole}{point}{fraction}", if negative && !zero { "-" } else { "" })
        })
        .boxed()
}

fn any_moment() -> impl Strategy<Value = DateTime> {
    let first = date(1, 1, 1).at(0, 0, 0, 0);
    (0i64..3_652_059, 0i64..86_400_000_000).prop_map(move |(days, micros)| {
        let moment = first + jiff::Span::new().days(days) + jiff::Span::new().microseconds(micros);
        moment.min(date(9999, 12, 31).at(23, 59, 59, 999_999_000))
    })
}

fn day_text(day: Date) -> String {
    format!("{:04}-{:02}-{:02}", day.year(), day.month(), day.day())
}

fn date_sample(moment: DateTime) -> Sample {
    let days = date(2000, 1, 1).until(moment.date()).unwrap().get_days();
    Sample::new(day_text(moment.date()), days.to_be_bytes())
}

fn timestamp_sample(moment: DateTime, zone: bool) -> Sample {
    let micros = date(2000, 1, 1).at(0, 0, 0, 0).duration_until(moment).as_micros() as i64;
    let mut text = format!(
        "{} {:02}:{:02}:{:02}",
        day_text(moment.date()),
        moment.hour(),
        moment.minute(),
        moment.second()
    );
    let fraction = moment.subsec_nanosecond() / 1000;
    if fraction != 0 {
        text.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    if zone {
        text.push_str("+00");
    }
    Sample::new(text, micros.to_be_bytes())
}

fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uuid_sample(bytes: [u8; 16]) -> Sample {
    let hex = hex_text(&bytes);
    let text = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    Sample::new(text, bytes)
}

/// A scalar conversion with a value of it.
fn any_scalar() -> BoxedStrategy<(Conversion, Sample)> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    let of = |conversion: Conversion, samples: BoxedStrategy<Sample>| {
        samples.prop_map(move |sample| (conversion.clone(), sample)).boxed()
    };
    let decimals = (1u8..=76).prop_flat_map(|precision| (Just(precision), 0..=precision)).prop_flat_map(
        |(precision, scale)| {
            numeric_text(usize::from(precision - scale), usize::from(scale))
                .prop_map(move |text| (Conversion::Decimal { precision, scale }, numeric_sample(&text)))
        },
    );
    let unbounded = prop_oneof![
        20 => numeric_text(60, 60),
        1 => Just("NaN".to_owned()),
        1 => Just("Infinity".to_owned()),
        1 => Just("-Infinity".to_owned()),
    ];
    prop_oneof![
        of(
            Conversion::Bool,
            any::<bool>().prop_map(|b| Sample::new(if b { "t" } else { "f" }, [u8::from(b)])).boxed()
        ),
        of(Conversion::Int16, any::<i16>().prop_map(|n| Sample::new(n.to_string(), n.to_be_bytes())).boxed()),
        of(Conversion::Int32, any::<i32>().prop_map(|n| Sample::new(n.to_string(), n.to_be_bytes())).boxed()),
        of(Conversion::Int64, any::<i64>().prop_map(|n| Sample::new(n.to_string(), n.to_be_bytes())).boxed()),
        of(
            Conversion::Float32,
            any::<u32>()
                .prop_map(f32::from_bits)
                .prop_map(|n| Sample::new(float_text(n.into(), n.to_string()), n.to_be_bytes()))
                .boxed()
        ),
        of(
            Conversion::Float64,
            any::<u64>()
                .prop_map(f64::from_bits)
                .prop_map(|n| Sample::new(float_text(n, n.to_string()), n.to_be_bytes()))
                .boxed()
        ),
        decimals,
        of(Conversion::NumericText, unbounded.prop_map(|text| numeric_sample(&text)).boxed()),
        of(Conversion::Text, bytes().prop_map(|b| Sample::new(b.clone(), b)).boxed()),
        of(Conversion::Bytes, bytes().prop_map(|b| Sample::new(format!("\\x{}", hex_text(&b)), b)).boxed()),
        of(Conversion::Jsonb, bytes().prop_map(|b| Sample::new(b.clone(), [&[1], &b[..]].concat())).boxed()),
        of(Conversion::Uuid, any::<[u8; 16]>().prop_map(uuid_sample).boxed()),
        of(Conversion::Date, any_moment().prop_map(date_sample).boxed()),
        of(
            Conversion::Timestamp,
            (any_moment(), any::<bool>()).prop_map(|(m, z)| timestamp_sample(m, z)).boxed()
        ),
    ]
    .boxed()
}

/// An array of samples as `array_out` and `array_send` write it.
fn array_sample(elements: &[Option<Sample>]) -> Sample {
    let mut text = b"{".to_vec();
    let mut binary = Vec::new();
    let nulls = elements.iter().any(Option::is_none);
    let dimensions = i32::from(!elements.is_empty());
    [dimensions, i32::from(nulls), 25].iter().for_each(|n: &i32| binary.extend(n.to_be_bytes()));
    if dimensions == 1 {
        [elements.len() as i32, 1].iter().for_each(|n| binary.extend(n.to_be_bytes()));
    }
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        let Some(element) = element else {
            text.extend(b"NULL");
            binary.extend((-1i32).to_be_bytes());
            continue;
        };
        let special = |byte: &u8| b"\"\\{}, \t\n\r\x0b\x0c".contains(byte);
        let quoted = element.text.is_empty()
            || element.text.eq_ignore_ascii_case(b"null")
            || element.text.iter().any(special);
        if quoted {
            text.push(b'"');
        }
        for &byte in &element.text {
            if matches!(byte, b'"' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        if quoted {
            text.push(b'"');
        }
        binary.extend((element.binary.len() as i32).to_be_bytes());
        binary.extend(&element.binary);
    }
    text.push(b'}');
    Sample::new(text, binary)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_forms_of_a_scalar_are_the_same_bytes((conversion, sample) in any_scalar()) {
        both(&conversion, &sample).unwrap();
    }

    #[test]
    fn decimals_are_the_number(text in numeric_text(20, 18)) {
        let bytes = both(&Conversion::Decimal { precision: 38, scale: 18 }, &numeric_sample(&text)).unwrap();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let expected: i128 = format!("{whole}{fraction:0<18}").parse().unwrap();
        prop_assert_eq!(&bytes[1..], expected.to_le_bytes());
        let wide = both(&Conversion::Decimal { precision: 76, scale: 18 }, &numeric_sample(&text)).unwrap();
        prop_assert_eq!(&wide[1..17], expected.to_le_bytes());
        let fill = if expected < 0 { 0xff } else { 0 };
        prop_assert_eq!(&wide[17..], [fill; 16]);
    }

    #[test]
    fn both_forms_of_an_array_are_the_same_bytes(
        (conversion, elements) in any_scalar().prop_flat_map(|(conversion, sample)| {
            let element = proptest::option::of(Just(sample));
            (Just(conversion), proptest::collection::vec(element, 0..5))
        }),
    ) {
        both(&Conversion::Array(Box::new(conversion)), &array_sample(&elements)).unwrap();
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(
        (conversion, sample) in any_scalar(),
        array in any::<bool>(),
        noise in proptest::collection::vec(any::<u8>(), 0..64),
        cut in any::<prop::sample::Index>(),
    ) {
        let conversion = if array { Conversion::Array(Box::new(conversion)) } else { conversion };
        let spoilt = [&sample.binary[..cut.index(sample.binary.len() + 1)], &noise].concat();
        let _ = encode(&conversion, Field::Binary(&spoilt));
        let _ = encode(&conversion, Field::Binary(&noise));
        let _ = encode(&conversion, Field::Text(&noise));
        let spoilt = [&sample.text[..cut.index(sample.text.len() + 1)], &noise].concat();
        let _ = encode(&conversion, Field::Text(&spoilt));
    }
}

#[test]
fn numbers_at_the_edges_of_their_decimal() {
    let decimal = |precision, scale| Conversion::Decimal { precision, scale };
    let nines = "9".repeat(76);
    for (conversion, text) in [
        (decimal(76, 0), nines.as_str()),
        (decimal(76, 76), &format!("0.{nines}")),
        (decimal(38, 0), &nines[..38]),
        (decimal(18, 0), &nines[..18]),
        (decimal(9, 0), &nines[..9]),
        (decimal(5, 0), "12300"),
        (decimal(5, 5), "0.00012"),
    ] {
        assert!(both(&conversion, &numeric_sample(text)).is_ok(), "{conversion:?} {text}");
        assert!(both(&conversion, &numeric_sample(&format!("-{text}"))).is_ok(), "{conversion:?} -{text}");
        let long = format!("1{}", text.trim_start_matches("0.").replace('9', "0"));
        assert_eq!(
            both(&decimal(5, 0), &numeric_sample(&format!("{long}00000"))),
            Err(Fault::Unrepresentable)
        );
    }
    for text in ["NaN", "1.001", "1000", "0.00001"] {
        assert_eq!(both(&decimal(5, 2), &numeric_sample(text)), Err(Fault::Unrepresentable), "{text}");
    }
    let value = both(&decimal(9, 2), &numeric_sample("-12.30")).unwrap();
    assert_eq!(value[1..], (-1230i32).to_le_bytes());
}

#[test]
fn moments_that_clickhouse_cannot_hold_are_refused_in_both_forms() {
    let timestamp =
        |text: &str, micros: i64| both(&Conversion::Timestamp, &Sample::new(text, micros.to_be_bytes()));
    assert_eq!(timestamp("infinity", i64::MAX), Err(Fault::Unrepresentable));
    assert_eq!(timestamp("-infinity", i64::MIN), Err(Fault::Unrepresentable));
    assert_eq!(
        timestamp("0001-12-31 23:59:59.999999 BC", -63_082_281_600_000_001),
        Err(Fault::Unrepresentable)
    );
    assert_eq!(timestamp("10000-01-01 00:00:00", 252_455_616_000_000_000), Err(Fault::Unrepresentable));
    assert!(timestamp("0001-01-01 00:00:00", -63_082_281_600_000_000).is_ok());
    let date = |text: &str, days: i32| both(&Conversion::Date, &Sample::new(text, days.to_be_bytes()));
    assert_eq!(date("infinity", i32::MAX), Err(Fault::Unrepresentable));
    assert_eq!(date("-infinity", i32::MIN), Err(Fault::Unrepresentable));
    assert_eq!(date("4714-11-24 BC", -2_451_545), Err(Fault::Unrepresentable));
    let narrow = |text: &str| {
        Column::new(&Conversion::Date, false, TimeRange::NARROW).push(Field::Text(text.as_bytes()))
    };
    assert_eq!(narrow("1900-01-01"), Ok(()));
    assert_eq!(narrow("1899-12-31"), Err(Fault::Unrepresentable));
    assert_eq!(narrow("2299-12-31"), Ok(()));
    assert_eq!(narrow("2300-01-01"), Err(Fault::Unrepresentable));
}

#[test]
fn arrays_as_postgresql_writes_them() {
    let strings = Conversion::Array(Box::new(Conversion::Text));
    let encode = |text: &str| encode(&strings, Field::Text(text.as_bytes()));
    let end = |n: u64| n.to_le_bytes().to_vec();
    assert_eq!(encode("{}"), Ok(end(0)));
    assert_eq!(encode("{NULL,\"NULL\"}"), Ok([end(2), b"\x01\x00\x00\x04NULL".to_vec()].concat()));
    assert_eq!(
        encode("[0:1]={a,\"b \\\"\\\\\"}"),
        Ok([end(2), b"\x00\x00\x01a\x04b \"\\".to_vec()].concat())
    );
    for nested in ["{{1},{2}}", "[1:1][0:0]={{1}}"] {
        assert_eq!(encode(nested), Err(Fault::Dimensions), "{nested}");
    }
    for bad in ["", "{", "a", "{a", "{a,}", "{,a}", "{\"a}", "{\"a\"b}", "{\"a\\", "[0:1]"] {
        assert_eq!(encode(bad), Err(Fault::Malformed), "{bad}");
    }
}
