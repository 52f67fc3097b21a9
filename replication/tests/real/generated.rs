//! Columns that the source computes: never defaulted, whether they are published or not.

use crate::mirror::Mirror;

const DDL: &str = "create table lines (id int primary key, price numeric(8, 2), n int,
                       total numeric(10, 2) generated always as (price * n) stored, note text,
                       label text generated always as ('#' || note) stored);
                   alter table lines alter label set storage external, alter note set storage external";
const LINE: &str = "id::text || ' ' || coalesce(total::text, '-') || ' ' || coalesce(md5(note), '-') || ' ' || coalesce(md5(label), '-')";
const LINE_SINK: &str = "concat(toString(id), ' ', ifNull(toDecimalString(total, 2), '-'), ' ',
    if(isNull(note), '-', lower(hex(MD5(note)))), ' ', if(isNull(label), '-', lower(hex(MD5(label)))))";

async fn arrive(ddl: &str, published: bool, binary: bool) {
    let mut mirror = Mirror::new(ddl, &["lines"]).await;
    let stored = if published { "stored" } else { "none" };
    mirror
        .source
        .run(&format!(
            "alter publication \"{}\" set (publish_generated_columns = {stored})",
            mirror.config.publication
        ))
        .await;
    mirror.config.binary = binary;
    let mut stream = mirror.start();
    mirror
        .source
        .run(
            "insert into lines (id, price, n, note) select i, i * 1.5, i, repeat(md5(i::text), 100) from generate_series(1, 100) i;
             update lines set price = 7 where id % 3 = 0; update lines set n = null where id % 5 = 0; update lines set note = 'short' where id < 20;
             update lines set id = id + 1000 where id between 30 and 40; delete from lines where id between 50 and 60;
             begin; insert into lines (id, price, n, note) values (500, 1, 1, repeat('x', 5000)); update lines set n = 2 where id = 500;
             update lines set id = 501 where id = 500; update lines set note = null where id = 501; commit;
             begin; insert into lines (id, price, n) values (600, 1, 1); delete from lines where id = 600; commit",
        )
        .await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, LINE, LINE_SINK).await, 90, "{published} {binary}");
    mirror.source.run("truncate lines; insert into lines (id, price, n) values (1, 2, 3)").await;
    mirror.caught_up(&mut stream).await;
    assert_eq!(mirror.assert_same(0, LINE, LINE_SINK).await, 1);
    stream.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_that_are_published_arrive() {
    arrive(DDL, true, false).await;
    arrive(DDL, true, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_that_are_not_published_are_read_from_the_source() {
    arrive(DDL, false, false).await;
    arrive(DDL, false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_of_tables_with_the_identity_full_arrive() {
    let full = format!("{DDL}; alter table lines replica identity full");
    // Not published, they could not be: the server refuses the updates then.
    arrive(&full, true, false).await;
    arrive(&full, true, true).await;
}
