//! Traffic of the shop: what customers and clerks do, at a pace, until told to stop.
//!
//! I/O rim.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use super::shop::{CUSTOMERS, ORDERS, PRODUCTS};
use super::sides::Sides;

/// Sessions that write.
const WRITERS: usize = 4;
/// Rows that one transaction of ordinary traffic changes, about: what the pace is made of.
const ROWS_PER_TRANSACTION: f64 = 2.5;

/// Traffic in the background.
#[derive(Debug)]
pub struct Traffic {
    writers: JoinSet<anyhow::Result<()>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    changed: AtomicU64,
    newest_order: AtomicI64,
}

impl Traffic {
    /// Begins to write, so many changed rows a second, all writers together.
    ///
    /// # Errors
    /// If the source cannot be reached.
    pub async fn start(sides: &Sides, rows_per_second: f64) -> anyhow::Result<Self> {
        let newest: i64 = sides.shop().await?.query_one("select max(id) from orders", &[]).await?.get(0);
        let shared = Arc::new(Shared { changed: AtomicU64::new(0), newest_order: AtomicI64::new(newest) });
        let stop = CancellationToken::new();
        let pause = Duration::from_secs_f64(ROWS_PER_TRANSACTION * WRITERS as f64 / rows_per_second);
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let client = sides.shop().await?;
            writers.spawn(write(client, Arc::clone(&shared), stop.clone(), pause));
        }
        Ok(Self { writers, shared, stop })
    }

    /// Rows changed so far, in transactions that were committed.
    pub fn changed(&self) -> u64 {
        self.shared.changed.load(Ordering::Relaxed)
    }

    /// Whether all writers still write.
    ///
    /// # Errors
    /// What a writer failed with.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.writers.try_join_next().map_or(Ok(()), |writer| writer?)
    }

    /// Ends the traffic; returns the rows changed.
    ///
    /// # Errors
    /// What a writer failed with.
    pub async fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.cancel();
        while let Some(writer) = self.writers.join_next().await {
            writer??;
        }
        Ok(self.changed())
    }
}

async fn write(
    mut client: Client,
    shared: Arc<Shared>,
    stop: CancellationToken,
    pause: Duration,
) -> anyhow::Result<()> {
    let mut pace = tokio::time::interval_at(Instant::now(), pause);
    // A slow disk is not made up for in a burst, which would be another traffic.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(pace.tick()).await.is_some() {
        match act(&mut client, &shared).await {
            Ok(rows) => {
                shared.changed.fetch_add(rows, Ordering::Relaxed);
            }
            // Two clerks got into each other's way.
            Err(error)
                if matches!(
                    error.code(),
                    Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::UNIQUE_VIOLATION)
                ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// One thing that somebody does. The number of rows it changed.
async fn act(client: &mut Client, shared: &Shared) -> Result<u64, tokio_postgres::Error> {
    let (dice, customer, product, order) = {
        let mut rng = rand::rng();
        let newest = shared.newest_order.load(Ordering::Relaxed);
        (
            rng.random_range(0..100),
            rng.random_range(1..=CUSTOMERS),
            rng.random_range(1..=PRODUCTS as i32),
            rng.random_range(newest - ORDERS + 1..=newest),
        )
    };
    let one = async |sql: &str, parameter: &(dyn tokio_postgres::types::ToSql + Sync)| {
        client.execute(sql, &[parameter]).await
    };
    match dice {
        0..35 => place_order(client, shared, customer, product).await,
        35..55 => one("update orders set status = (enum_range(null::order_status))[random(1, 4)], total = total + 0.01 where id = $1", &order).await,
        // The description is out of line and unchanged: the log does not hold it.
        55..68 => one("update products set stock = stock - 1, rating = random() where number = $1", &product).await,
        68..72 => one("update products set description = repeat(md5(random()::text), 80) where number = $1", &product).await,
        72..76 => one("update products set sku = 'P' || number || '-' || random(1, 1000000) where number = $1", &product).await,
        76..80 => one("update order_items set line = line + 100 where order_id = $1 and line = 1", &order).await,
        80..88 => one("update customers set profile = case when random() < 0.3 then null else jsonb_build_object('level', random(1, 9)) end, tags = array['t' || random(1, 99)], name = nullif(name, 'Customer ' || id) where id = $1", &customer).await,
        88..93 => cancel_order(client, order).await,
        93..97 => one("delete from events where id in (select id from events where kind = 'view' and $1::bigint is not null limit 2)", &order).await,
        97..99 => replace_product(client, product).await,
        _ => change_ones_mind(client, order).await,
    }
}

async fn place_order(
    client: &mut Client,
    shared: &Shared,
    customer: i64,
    product: i32,
) -> Result<u64, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let sql = "insert into orders (customer_id, total, note) values ($1, random(1, 9999) / 100.0, case when random() < 0.1 then 'in a hurry' end) returning id";
    let order: i64 = transaction.query_one(sql, &[&customer]).await?.get(0);
    let sql = "insert into order_items select $1::bigint, l, $2::int, l, 9.99 from generate_series(1, random(1, 3)) l";
    let items = transaction.execute(sql, &[&order, &product]).await?;
    let sql = "insert into events (kind, payload) values ('order', jsonb_build_object('order', $1::bigint))";
    transaction.execute(sql, &[&order]).await?;
    transaction.commit().await?;
    shared.newest_order.fetch_max(order, Ordering::Relaxed);
    Ok(items + 2)
}

async fn cancel_order(client: &mut Client, order: i64) -> Result<u64, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let items = transaction.execute("delete from order_items where order_id = $1", &[&order]).await?;
    let orders = transaction.execute("delete from orders where id = $1", &[&order]).await?;
    transaction.commit().await?;
    Ok(items + orders)
}

/// Deletes a row and inserts its key again, in one transaction.
async fn replace_product(client: &mut Client, product: i32) -> Result<u64, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let deleted =
        transaction.query_opt("delete from products where number = $1 returning sku", &[&product]).await?;
    let Some(row) = deleted else { return Ok(0) };
    let sku: String = row.get(0);
    let sql = "insert into products values ($1, $2, 'Replaced', repeat(md5(random()::text), 100), 1.5, 10, null, null)";
    transaction.execute(sql, &[&sku, &product]).await?;
    transaction.commit().await?;
    Ok(2)
}

/// Takes part of a transaction back, and now and then all of it.
async fn change_ones_mind(client: &mut Client, order: i64) -> Result<u64, tokio_postgres::Error> {
    let mut transaction = client.transaction().await?;
    let first = transaction.execute("update orders set note = 'first' where id = $1", &[&order]).await?;
    let part = transaction.transaction().await?;
    part.execute("delete from orders where id = $1", &[&order]).await?;
    part.rollback().await?;
    if order % 2 == 0 {
        transaction.rollback().await?;
        return Ok(0);
    }
    transaction.commit().await?;
    Ok(first)
}

/// Changes many rows as fast as the source can; returns how many.
///
/// # Errors
/// If a statement fails.
pub async fn burst(client: &Client) -> Result<u64, tokio_postgres::Error> {
    let mut rows = 0;
    for i in 0..20_i64 {
        for (sql, parameter) in [
            ("update orders set total = total + 1 where id > $1 and id <= $1 + 500", i * 1_000),
            (
                "insert into events (kind, payload) select 'burst', jsonb_build_object('n', n) from generate_series($1::bigint, $1::bigint + 499) n",
                i,
            ),
            (
                "update products set stock = stock + 1 where number > $1::bigint and number <= $1::bigint + 100",
                i * 100,
            ),
            ("delete from order_items where order_id > $1 and order_id <= $1 + 100", i * 1_000 + 600),
        ] {
            rows += client.execute(sql, &[&parameter]).await?;
        }
    }
    Ok(rows)
}
