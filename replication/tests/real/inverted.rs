//! B1: a transaction that takes a key writes its record before it waits for the one that has it. So the
//! record of the row which is there in the end may be older than that of a tombstone before it, and only
//! the commits tell their order.

use std::time::Duration;

use crate::mirror::Mirror;

/// The unique index first: where both are checked, it is waited in before the key is looked at.
const KEYS: &str = "create table keys (id int, u int unique, v text); alter table keys add primary key (id)";

/// One transaction changes the keys, and another waits for it.
struct Form {
    name: &'static str,
    /// Committed before.
    before: &'static str,
    /// The first transaction, up to where the second waits for it.
    first: &'static str,
    /// What the second does meanwhile: it waits.
    second: &'static str,
    /// What happens while it waits, in a transaction of its own.
    between: &'static str,
    /// How the first goes on and ends.
    end: &'static str,
}

const FORMS: [Form; 5] = [
    Form {
        name: "an insert behind an insert and a delete",
        before: "",
        first: "begin; insert into keys values (1, 1, 'first')",
        second: "insert into keys values (1, 2, 'second')",
        between: "",
        end: "delete from keys where id = 1; commit",
    },
    Form {
        name: "a key that one update leaves and another takes",
        before: "insert into keys values (1, 1, 'a'), (2, 2, 'b')",
        first: "begin; update keys set v = 'c' where id = 1",
        second: "update keys set id = 1 where id = 2",
        between: "",
        end: "update keys set id = 3 where id = 1; commit",
    },
    Form {
        name: "ON CONFLICT",
        before: "",
        first: "begin; insert into keys values (1, 1, 'first')",
        second: "insert into keys values (1, 2, 'second') on conflict (id) do update set v = 'updated'",
        between: "",
        end: "delete from keys where id = 1; commit",
    },
    Form {
        name: "an insert that waits in another index",
        before: "insert into keys values (1, 10, 'old')",
        first: "begin; insert into keys values (5, 20, 'holder')",
        second: "insert into keys values (1, 20, 'new')",
        between: "delete from keys where id = 1",
        end: "rollback",
    },
    Form {
        name: "COPY, all of whose records come before all of its checks",
        before: "",
        first: "begin; insert into keys values (2, 2, 'first')",
        second: "copy keys from program 'echo 1,101,a; echo 2,102,b; echo 3,103,c' (format csv)",
        between: "insert into keys values (3, 9, 'other'); delete from keys where id = 3",
        end: "delete from keys where id = 2; commit",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn commits_order_the_changes_of_a_key_where_records_do_not() {
    for form in &FORMS {
        for binary in [false, true] {
            let mut mirror = Mirror::new(KEYS, &["keys"]).await;
            mirror.config.binary = binary;
            let mut stream = mirror.start();
            mirror.source.run(form.before).await;
            let (first, second) = (mirror.source.session().await, mirror.source.session().await);
            first.batch_execute(form.first).await.unwrap();
            let waiting = tokio::spawn(async move { second.batch_execute(form.second).await });
            let blocked = "select count(*) from pg_locks where not granted and locktype = 'transactionid'
                            and pid in (select pid from pg_stat_activity where datname = current_database())";
            while mirror.source.sql.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                assert!(!waiting.is_finished(), "{}: it does not wait", form.name);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            mirror.source.run(form.between).await;
            first.batch_execute(form.end).await.unwrap();
            waiting.await.unwrap().unwrap();
            mirror.caught_up(&mut stream).await;
            let row = "id::text || ' ' || u::text || ' ' || v";
            let sink = "concat(toString(id), ' ', toString(u), ' ', v)";
            assert!(mirror.assert_same(0, row, sink).await > 0, "{}", form.name);
            stream.stop().await;
        }
    }
}
