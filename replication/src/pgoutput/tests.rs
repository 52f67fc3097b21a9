use super::*;
use proptest::prelude::*;

/// Builds messages as the server does.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn kind(kind: u8) -> Self {
        Self(vec![kind])
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        self.put(text.as_bytes()).put(&[0])
    }

    fn tuple(mut self, datums: &[Datum<'_>]) -> Self {
        self = self.put(&(datums.len() as u16).to_be_bytes());
        for datum in datums {
            self = match datum {
                Datum::Null => self.put(b"n"),
                Datum::Unchanged => self.put(b"u"),
                Datum::Text(value) => self.put(b"t").put(&(value.len() as u32).to_be_bytes()).put(value),
                Datum::Binary(value) => self.put(b"b").put(&(value.len() as u32).to_be_bytes()).put(value),
            };
        }
        self
    }

    fn decode(self) -> Result<Message> {
        decode(self.0.into())
    }
}

const ROW: [Datum<'static>; 4] = [Datum::Text(b"1"), Datum::Null, Datum::Unchanged, Datum::Binary(&[0, 7])];

#[test]
fn transactions_have_their_positions_and_times() {
    let begin =
        Wire::kind(b'B').put(&90_u64.to_be_bytes()).put(&5_i64.to_be_bytes()).put(&7_u32.to_be_bytes());
    assert_eq!(begin.decode(), Ok(Message::Begin(Begin { commit: Lsn(90), time: 5, xid: 7 })));
    let commit = Wire::kind(b'C')
        .put(&[0])
        .put(&90_u64.to_be_bytes())
        .put(&120_u64.to_be_bytes())
        .put(&5_i64.to_be_bytes());
    assert_eq!(commit.decode(), Ok(Message::Commit(Commit { commit: Lsn(90), end: Lsn(120), time: 5 })));
}

#[test]
fn relations_have_their_columns() {
    let message = Wire::kind(b'R')
        .put(&16_u32.to_be_bytes())
        .text("public")
        .text("größe")
        .put(b"d")
        .put(&2_u16.to_be_bytes())
        .put(&[1])
        .text("id")
        .put(&20_u32.to_be_bytes())
        .put(&(-1_i32).to_be_bytes())
        .put(&[0])
        .text("price")
        .put(&1700_u32.to_be_bytes())
        .put(&655_366_i32.to_be_bytes())
        .decode();
    let Ok(Message::Relation(relation)) = message else { panic!("{message:?}") };
    assert_eq!((relation.oid, relation.name.as_str(), relation.identity), (16, "größe", b'd'));
    assert_eq!(relation.columns[0], Column { identity: true, name: "id".into(), type_oid: 20, typmod: -1 });
    assert_eq!(relation.columns[1].typmod, 655_366);
}

#[test]
fn rows_keep_every_form_of_a_value() {
    let message = Wire::kind(b'I').put(&16_u32.to_be_bytes()).put(b"N").tuple(&ROW).decode();
    let Ok(Message::Insert(insert)) = message else { panic!("{message:?}") };
    assert_eq!(insert.new.datums().collect::<Vec<_>>(), ROW);
    assert_eq!(insert.new.datums().last(), Some(Datum::Binary(&[0, 7])));
}

#[test]
fn updates_and_deletes_have_their_old_rows() {
    let update = |old: &[u8]| {
        let mut wire = Wire::kind(b'U').put(&16_u32.to_be_bytes());
        if !old.is_empty() {
            wire = wire.put(old).tuple(&ROW[..1]);
        }
        match wire.put(b"N").tuple(&ROW).decode() {
            Ok(Message::Update(update)) => update.old,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(update(b""), None);
    assert!(matches!(update(b"K"), Some(Old::Key(key)) if key.datums().eq(ROW[..1].iter().copied())));
    assert!(matches!(update(b"O"), Some(Old::Full(_))));
    let delete = Wire::kind(b'D').put(&16_u32.to_be_bytes()).put(b"K").tuple(&ROW[..1]).decode();
    assert!(matches!(delete, Ok(Message::Delete(Delete { relation: 16, old: Old::Key(_) }))));
}

#[test]
fn truncates_and_logical_messages() {
    let truncate = Wire::kind(b'T')
        .put(&2_u32.to_be_bytes())
        .put(&[1])
        .put(&1_u32.to_be_bytes())
        .put(&2_u32.to_be_bytes());
    assert_eq!(truncate.decode(), Ok(Message::Truncate(Truncate { relations: vec![1, 2] })));
    let words =
        Wire::kind(b'M').put(&[1]).put(&9_u64.to_be_bytes()).text("p").put(&2_u32.to_be_bytes()).put(b"hi");
    let Ok(Message::Logical(words)) = words.decode() else { panic!() };
    assert_eq!((words.transactional, words.prefix.as_str(), &words.content[..]), (true, "p", &b"hi"[..]));
}

#[test]
fn what_is_no_message_is_refused() {
    for bad in [
        &b""[..],
        b"?",
        b"B\0\0",
        b"I\0\0\0\x10N\0\x01t\0\0\0\x05abc",
        b"I\0\0\0\x10N\0\x01x",
        b"I\0\0\0\x10K\0\0",
        b"I\0\0\0\x10N\0\0extra",
        b"U\0\0\0\x10X",
        b"D\0\0\0\x10N\0\0",
        b"T\xff\xff\xff\xff\0",
        b"R\0\0\0\x10unterminated",
        b"M\0\0\0\0\0\0\0\0\0p\0\xff\xff\xff\xff",
    ] {
        let error = decode(Bytes::copy_from_slice(bad)).unwrap_err();
        assert_eq!(error.code(), millrace_terms::Code::ProtocolViolation, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in prop::sample::select(&b"BCORYIUDTM?"[..]), rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut message = vec![kind];
        message.extend(rest);
        drop(decode(message.into()));
    }

    #[test]
    fn no_damage_to_a_message_makes_it_panic(at in 0_usize..60, byte in any::<u8>(), cut in 0_usize..60) {
        let mut wire = Wire::kind(b'U').put(&16_u32.to_be_bytes()).put(b"O").tuple(&ROW).put(b"N").tuple(&ROW).0;
        let length = wire.len();
        wire[at % length] = byte;
        wire.truncate(length - cut % length);
        if let Ok(Message::Update(update)) = decode(wire.into()) {
            prop_assert_eq!(update.new.datums().count(), update.new.columns());
        }
    }
}
