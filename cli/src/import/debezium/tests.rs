use super::*;
use crate::import::tests::shown;

fn imported(texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    shown(&read(&texts, "debezium").unwrap())
}

#[test]
fn source_and_sink_of_kafka_connect_become_a_file() {
    insta::assert_snapshot!(imported(&[include_str!("../fixtures/debezium.json")]));
}

#[test]
fn the_properties_of_a_server_become_a_file() {
    insta::assert_snapshot!(imported(&[include_str!("../fixtures/debezium_server.properties")]));
}

#[test]
fn the_sinks_names_of_tables_are_kept() {
    let source = r#"{"name": "shop", "config": {"connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": "h", "database.user": "u", "database.password": "p", "database.dbname": "d",
        "topic.prefix": "shop", "table.include.list": "public.orders"}}"#;
    insta::assert_snapshot!(imported(&[source, include_str!("../fixtures/altinity.properties")]));
}

#[test]
fn what_holds_no_postgres_connector_is_refused() {
    for text in [
        "",
        "{}",
        "{\"config\": {\"connector.class\": \"io.debezium.connector.mysql.MySqlConnector\"}}",
        "[{",
    ] {
        let error = read(&[text.to_owned()], "debezium").err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument, "{text}");
    }
}
