//! Tables that inherit from others (`INHERITS`): tables of their own, or one with their parent.

use libtest_mimic::Trial;
use millrace_proto::v1::verification::{State, Verdict};
use millrace_proto::v1::{self as api, table};
use tonic_types::StatusExt;

use crate::support::bed::{Bed, SOON};
use crate::support::{test, wait};

pub fn tests() -> Vec<Trial> {
    vec![
        test("inheritance::children_are_tables_of_their_own", children_are_tables_of_their_own),
        test("inheritance::children_are_one_with_their_parent", children_are_one_with_their_parent),
        test("inheritance::children_come_and_go", children_come_and_go),
        test("inheritance::what_belongs_to_two_is_refused", what_belongs_to_two_is_refused),
    ]
}

/// Three levels; the second has a further column, and another order of columns by a dropped one.
const TABLES: &str = "
    create table parent (id bigint primary key, v text, big text);
    alter table parent alter big set storage external;
    create table child (gone int, more int, primary key (id)) inherits (parent); alter table child drop column gone;
    alter table child alter big set storage external;
    create table grandchild (primary key (id)) inherits (child);
    insert into parent select i, 'p' || i, repeat('p', 3000) from generate_series(1, 100) i;
    insert into child (id, v, big, more) select i, 'c' || i, repeat('c', 3000), i from generate_series(1001, 1200) i;
    insert into grandchild (id, v, big, more) select i, 'g' || i, repeat('g', 3000), i from generate_series(2001, 2300) i;
    create view own_rows as select * from only parent;
    create view of_child as select * from only child";

/// Writes to every level: what is large stays as it is, keys change, rows move away and back.
const CHANGES: &str = "
    update parent set v = v || '!' where id % 3 = 0; delete from parent where id % 50 = 0;
    update child set id = id + 500 where id between 1001 and 1010; update grandchild set more = -more where id % 2 = 0;
    insert into grandchild values (3000, 'new', 'small', 1); insert into parent values (3001, 'new', null);
    begin; delete from only child where id = 1101; insert into grandchild values (1101, 'moved', 'x', 1); commit";

async fn create(bed: &Bed, tables: &[&str]) -> Result<api::Mirror, tonic::Status> {
    let mut asked = bed.mirror(tables);
    asked.tables[0].with_children = true;
    bed.create(asked).await
}

async fn verdict(bed: &Bed) -> Verdict {
    let request = api::VerifyMirrorRequest { name: bed.name.clone(), ..Default::default() };
    let id = bed.mirrors().verify_mirror(request).await.expect("a verification").into_inner().id;
    wait::until("the end of the verification", SOON, || async {
        let request =
            api::GetVerificationRequest { name: bed.name.clone(), id: id.clone(), ..Default::default() };
        let found =
            bed.mirrors().get_verification(request).await.map_err(|error| error.to_string())?.into_inner();
        if found.state() == State::Running { Err(format!("{found:?}")) } else { Ok(found.verdict()) }
    })
    .await
}

async fn children_are_tables_of_their_own(bed: Bed) {
    bed.sql(TABLES).await;
    bed.mirror_streaming(&["public.parent", "public.child"]).await;
    bed.sql(CHANGES).await;
    assert_eq!(bed.wait_equal("own_rows", "parent").await, 99);
    assert_eq!(bed.wait_equal("of_child", "child").await, 195);
    assert_eq!(verdict(&bed).await, Verdict::Equal);
}

async fn children_are_one_with_their_parent(bed: Bed) {
    bed.sql(TABLES).await;
    create(&bed, &["public.parent"]).await.expect("a mirror");
    bed.wait_table("public.parent", table::State::Streaming).await;
    assert_eq!(bed.wait_equal("parent", "parent").await, 600);
    bed.sql(CHANGES).await;
    bed.wait_equal("parent", "parent").await;
    bed.sql("alter table parent rename v to w; alter table parent add c int default 5; update child set w = 'x' where id % 7 = 0").await;
    bed.wait_equal("parent", "parent").await;
    assert_eq!(verdict(&bed).await, Verdict::Equal);
    bed.clickhouse.query("delete from parent where id > 2100").await.expect("rows are deleted by hand");
    let request = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resync_mirror(request).await.expect("a resync");
    bed.wait_table("public.parent", table::State::Streaming).await;
    assert!(bed.wait_equal("parent", "parent").await > 500);
    bed.sql("truncate parent; insert into child (id, w) values (1, 'again')").await;
    assert_eq!(bed.wait_equal("parent", "parent").await, 1);
}

async fn children_come_and_go(bed: Bed) {
    bed.sql(TABLES).await;
    create(&bed, &["public.parent"]).await.expect("a mirror");
    bed.wait_table("public.parent", table::State::Streaming).await;
    // One with rows from before, and one without.
    bed.sql(
        "create table late (id bigint primary key, v text, big text); insert into late select i, 'late', 'x' from generate_series(5001, 5100) i;
         alter table late inherit parent;
         create table later (primary key (id)) inherits (grandchild); insert into later values (6001, 'later', 'y', 1)",
    )
    .await;
    assert_eq!(bed.wait_equal("parent", "parent").await, 701);
    bed.sql("update late set v = 'changed' where id % 2 = 0; delete from later; insert into later values (6002, 'later', 'y', 1)").await;
    assert_eq!(bed.wait_equal("parent", "parent").await, 701);
    // Its rows go with it, and what is written to it afterwards is nobody's.
    bed.sql("alter table late no inherit parent; insert into late values (5999, 'nobody', 's')").await;
    assert_eq!(bed.wait_equal("parent", "parent").await, 601);
    bed.sql("truncate grandchild; insert into parent values (7000, 'last', null)").await;
    bed.wait_equal("parent", "parent").await;
    // Without a key it is not published, for its rows could not be changed any more.
    bed.sql("create table keyless () inherits (parent); insert into keyless values (8000, 'keyless', null)")
        .await;
    let mirror = bed.wait_table("public.parent", table::State::Error).await;
    let error = mirror.tables[0].error.clone().expect("its error");
    assert!(error.remedy.contains("ADD PRIMARY KEY (\"id\")"), "{error:?}");
    bed.sql("update keyless set v = 'changed'; alter table keyless add primary key (id)").await;
    let request = api::ResyncMirrorRequest { name: bed.name.clone(), ..Default::default() };
    bed.mirrors().resync_mirror(request).await.expect("a resync");
    bed.wait_table("public.parent", table::State::Streaming).await;
    bed.wait_equal("parent", "parent").await;
    let request = api::DeleteMirrorRequest { name: bed.name.clone(), ..Default::default() };
    assert!(bed.mirrors().delete_mirror(request).await.expect("it is dropped").into_inner().done);
}

async fn what_belongs_to_two_is_refused(bed: Bed) {
    bed.sql(TABLES).await;
    bed.sql("create table keyless () inherits (parent)").await;
    let reason =
        |status: &tonic::Status| status.get_error_details().error_info().expect("ErrorInfo").reason.clone();
    let refused = create(&bed, &["public.parent"]).await.expect_err("a child without a key");
    assert_eq!(reason(&refused), "TABLE_WITHOUT_KEY", "{refused:?}");
    let details = refused.get_error_details();
    let remedy = details.error_info().and_then(|info| info.metadata.get("remedy")).expect("a remedy");
    assert!(remedy.contains("ALTER TABLE \"public\".\"keyless\" ADD PRIMARY KEY (\"id\")"), "{remedy}");
    bed.sql("drop table keyless").await;
    let refused =
        create(&bed, &["public.parent", "public.grandchild"]).await.expect_err("rows of two tables");
    assert_eq!(reason(&refused), "TABLE_UNSUPPORTED", "{refused:?}");
    assert!(refused.message().contains("public.grandchild"), "{refused:?}");
    let mut asked = bed.mirror(&["public.parent"]);
    (asked.tables[0].with_children, asked.tables[0].append_only) = (true, true);
    let refused = bed.create(asked).await.expect_err("both");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");

    // What is allowed to be alone joins later all the same: it alone is stopped.
    create(&bed, &["public.parent"]).await.expect("a mirror");
    bed.wait_table("public.parent", table::State::Streaming).await;
    let mut tables = bed.mirror(&["public.parent", "public.child"]).tables;
    tables[0].with_children = true;
    let asked = api::Mirror { name: bed.name.clone(), tables, ..Default::default() };
    let request = api::UpdateMirrorRequest { mirror: Some(asked), ..Default::default() };
    bed.mirrors().update_mirror(request).await.expect("an edit");
    let mirror = bed.wait_table("public.child", table::State::Error).await;
    let error = mirror.tables.iter().find_map(|table| table.error.clone()).expect("its error");
    assert!(error.message.contains("by itself"), "{error:?}");
    bed.sql(CHANGES).await;
    bed.wait_equal("parent", "parent").await;
}
