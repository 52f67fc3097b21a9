//! Every type through the stream, in both forms.

use super::compare::{assert_stored, create_table, every_kind, insert, seed};
use super::kinds::SETUP;
use super::random::Random;
use crate::mirror::Mirror;

/// Of the types here these are known by their text form alone: one such column makes a whole stream
/// use text.
const TEXT_ONLY: &[&str] = &[
    "interval",
    "money",
    "point",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "line",
    "pg_lsn",
    "tid",
    "pg_snapshot",
    "int2vector",
    "oidvector",
    "regclass",
    "regtype",
    "cube",
    "pair",
    "tsvector",
    "tsquery",
    "int4range",
    "numrange",
    "daterange",
    "tstzrange",
    "floatrange",
    "int8multirange",
];

#[tokio::test]
async fn every_type_is_streamed_as_it_is_rendered() {
    let mut random = Random::new(seed());
    for depth in 0..=2 {
        let (text, binary): (Vec<_>, Vec<_>) =
            every_kind(depth).into_iter().partition(|sample| TEXT_ONLY.contains(&sample.kind.name));
        for (samples, is_binary) in [(binary, true), (text, false)] {
            let ddl = format!("{SETUP}; {}", create_table("every", &samples));
            let mut mirror = Mirror::new(&ddl, &["every"]).await;
            let plan = mirror.plan(0);
            assert!(plan.columns[1..].iter().all(|column| column.conversion.binary_known() == is_binary));
            mirror.config.binary = true;
            let mut running = mirror.start();
            mirror.source.run(&insert("every", &samples, 30, &mut random)).await;
            mirror.caught_up(&mut running).await;
            assert_stored(&mirror.source.sql, &mirror.sink, &plan, &samples).await;
            running.stop().await;
        }
    }
}
