//! A Temporal server: started, asked by its own command line, stopped.

use millrace_embedded::cache::Cache;
use millrace_embedded::temporal::{Server, Settings, install};

use crate::free_port;

#[tokio::test]
async fn a_server_answers_and_knows_its_search_attributes_after_a_restart() {
    let program = tokio::task::spawn_blocking(|| install(&Cache::open()?)).await.unwrap().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        database: dir.path().join("temporal.db"),
        port: free_port(),
        ui_port: free_port(),
        log: dir.path().join("temporal.log"),
        search_attributes: vec!["MirrorName".to_owned()],
    };
    for _start in 0..2 {
        let mut server = Server::start(&program, &settings).await.unwrap();
        let list = tokio::process::Command::new(&program)
            .args(["operator", "search-attribute", "list", "--address"])
            .arg(format!("127.0.0.1:{}", settings.port))
            .output()
            .await
            .unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(list.contains("MirrorName"), "{list}");
        assert!(server.stop().await, "it did not end by itself");
    }
}
