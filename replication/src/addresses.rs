//! Which addresses peers may have. Whoever may make a peer lets a worker dial wherever it wants: without rules
//! that is the cloud's metadata service, which hands out the machine's credentials, or the catalog.
//!
//! The rules are asked where a connection is opened, of the addresses that a name stands for at that moment, and
//! the connection goes to just those: a name that is changed in between leads nowhere else.
//!
//! Pure, but for [`AddressRules::resolve`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use millrace_terms::{Code, Error, Result};

/// Networks that hold no database. A more specific entry of the allow list lets an address through all the same.
/// Loopback and private networks are not among them: that is where most databases are.
const DENIED: [(&str, &str); 11] = [
    ("169.254.0.0/16", "link-local, where clouds have their metadata services"),
    ("fe80::/10", "link-local"),
    ("fd00:ec2::254/128", "the metadata service of AWS"),
    ("fd20:ce::254/128", "the metadata service of Google Cloud"),
    ("100.100.100.200/32", "the metadata service of Alibaba Cloud"),
    ("168.63.129.16/32", "the host agent of Azure"),
    ("192.0.0.192/32", "the metadata service of Oracle Cloud"),
    ("0.0.0.0/8", "no address of a machine"),
    ("::/128", "no address of a machine"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
];

/// The prefix under which a NAT64 gateway reaches IPv4 addresses (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// How long a name server may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module. The default denies [`DENIED`] only.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    reserved: Vec<Database>,
}

/// A database that is no peer's: the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database.
    pub name: String,
}

impl AddressRules {
    /// Rules by networks, such as `10.0.0.0/8`, or single addresses. With an allow list only what it holds is
    /// allowed; the deny list outranks it. `reserved` are databases that no peer may be.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is no network.
    pub fn new(allow: &[String], deny: &[String], reserved: Vec<Database>) -> Result<Self> {
        let networks = |texts: &[String]| -> Result<Vec<IpNet>> {
            texts.iter().map(|text| network(text.trim())).collect()
        };
        Ok(Self { allow: networks(allow)?, deny: networks(deny)?, reserved })
    }

    /// The addresses of a host, all of which are allowed.
    ///
    /// # Errors
    /// ADDRESS_DENIED if one is not; `unreachable` if the name is not known.
    pub async fn resolve(&self, host: &str, port: u16, unreachable: Code) -> Result<Vec<SocketAddr>> {
        let found = look_up(host, port).await.map_err(|why| {
            Error::new(unreachable, format!("the name {host} cannot be resolved: {why}")).with("host", host)
        })?;
        for address in &found {
            self.check(host, address.ip())?;
        }
        Ok(found)
    }

    /// As [`AddressRules::resolve`], for a database of a PostgreSQL server.
    ///
    /// # Errors
    /// Also ADDRESS_DENIED if it is a reserved one.
    pub async fn resolve_database(&self, host: &str, port: u16, name: &str) -> Result<Vec<SocketAddr>> {
        let found = self.resolve(host, port, Code::SourceUnreachable).await?;
        for reserved in self.reserved.iter().filter(|reserved| reserved.port == port && reserved.name == name)
        {
            // A name that cannot be resolved now is the same only if it is spelled the same.
            let theirs = look_up(&reserved.host, port).await.unwrap_or_default();
            if reserved.host == host || found.iter().any(|ours| theirs.iter().any(|one| is_same(*ours, *one)))
            {
                let what = format!("the database {name} on {host}:{port} is Millrace's own catalog");
                return Err(Error::new(Code::AddressDenied, what).with("host", host));
            }
        }
        Ok(found)
    }

    /// Whether a peer may have the address.
    ///
    /// # Errors
    /// ADDRESS_DENIED, saying which rule denies it.
    pub fn check(&self, host: &str, address: IpAddr) -> Result<()> {
        let plain = plain(address);
        let reason = if let Some(net) = self.deny.iter().find(|net| net.contains(&plain)) {
            format!("{net} is on the deny list")
        } else if !self.allow.is_empty() && !self.allow.iter().any(|net| net.contains(&plain)) {
            "it is not on the allow list".to_owned()
        } else if let Some(reason) = self.denied_by_default(plain) {
            reason
        } else {
            return Ok(());
        };
        let name = if host == address.to_string() { host.to_owned() } else { format!("{host} ({address})") };
        let error = Error::new(Code::AddressDenied, format!("no peer may be at {name}: {reason}"));
        Err(error.with("host", host).with("address", address.to_string()))
    }

    fn denied_by_default(&self, address: IpAddr) -> Option<String> {
        let nets = DENIED.iter().filter_map(|(net, why)| Some((net.parse::<IpNet>().ok()?, why)));
        let (net, why) = nets.into_iter().find(|(net, _)| net.contains(&address))?;
        let is_excepted =
            self.allow.iter().any(|allowed| allowed.contains(&address) && net.contains(allowed));
        (!is_excepted).then(|| format!("{net} is {why}"))
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does: a rule for one is a rule for both.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let words = v6.segments();
    if words[..6] == NAT64 {
        return IpAddr::V4(Ipv4Addr::from(u32::from(words[6]) << 16 | u32::from(words[7])));
    }
    v6.to_canonical()
}

/// Whether two addresses are one machine's port; all of loopback is this machine.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (plain(one.ip()), plain(other.ip()));
    one.port() == other.port() && (a == b || a.is_loopback() && b.is_loopback())
}

async fn look_up(host: &str, port: u16) -> std::result::Result<Vec<SocketAddr>, String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // The path of a socket is this machine.
    if host.starts_with('/') {
        return Ok(vec![SocketAddr::from((Ipv6Addr::LOCALHOST, port))]);
    }
    match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, port))).await {
        Err(_) => Err(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(found)) => match found.collect::<Vec<_>>() {
            none if none.is_empty() => Err("it has no address".to_owned()),
            some => Ok(some),
        },
    }
}

fn network(text: &str) -> Result<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone).ok_or_else(|| {
        Error::new(Code::InvalidArgument, format!("{text:?} is no network"))
            .with_remedy("Give networks and addresses such as 10.0.0.0/8, fd00::/8 or 192.168.1.7.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> AddressRules {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        AddressRules::new(&texts(allow), &texts(deny), Vec::new()).unwrap()
    }

    fn allows(rules: &AddressRules, address: &str) -> bool {
        rules.check("db", address.parse().unwrap()).is_ok()
    }

    #[test]
    fn metadata_services_are_out_of_reach_and_laptops_and_private_networks_are_not() {
        let rules = AddressRules::default();
        for denied in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
        ] {
            assert!(!allows(&rules, denied), "{denied}");
        }
        for allowed in ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "fd00::1", "8.8.8.8", "2001:db8::1"] {
            assert!(allows(&rules, allowed), "{allowed}");
        }
        let error = rules.check("meta", "169.254.169.254".parse().unwrap()).unwrap_err();
        assert_eq!(error.code(), Code::AddressDenied);
        assert!(error.message().contains("meta (169.254.169.254)"), "{error}");
    }

    #[test]
    fn lists_narrow_and_the_deny_list_outranks() {
        let narrow = rules(&["10.0.0.0/8", "192.168.1.7"], &["10.9.0.0/16", "127.0.0.0/8"]);
        let verdicts =
            ["10.1.2.3", "192.168.1.7", "10.9.0.1", "127.0.0.1", "8.8.8.8"].map(|ip| allows(&narrow, ip));
        assert_eq!(verdicts, [true, true, false, false, false]);
        assert!(!allows(&rules(&["0.0.0.0/0"], &[]), "169.254.169.254"), "a wide entry does not open it");
        assert!(allows(&rules(&["169.254.7.0/24"], &[]), "169.254.7.1"), "an entry for it does");
        let bad = AddressRules::new(&["ten".to_owned()], &[], Vec::new()).unwrap_err();
        assert_eq!(bad.code(), Code::InvalidArgument);
        for (net, _) in DENIED {
            assert!(net.parse::<IpNet>().is_ok(), "{net}");
        }
    }

    #[tokio::test]
    async fn the_catalog_is_no_peer_however_it_is_called() {
        let catalog = Database { host: "127.0.0.1".into(), port: 9_901, name: "millrace".into() };
        let rules = AddressRules::new(&[], &[], vec![catalog]).unwrap();
        for host in ["127.0.0.1", "localhost", "::1", "127.0.0.2", "/run/postgresql"] {
            let error = rules.resolve_database(host, 9_901, "millrace").await.unwrap_err();
            assert_eq!(error.code(), Code::AddressDenied, "{host}");
        }
        rules.resolve_database("127.0.0.1", 9_901, "shop").await.unwrap();
        rules.resolve_database("127.0.0.1", 5_432, "millrace").await.unwrap();
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_stand_for() {
        let error =
            rules(&[], &["127.0.0.0/8", "::1"]).resolve("localhost", 1, Code::SourceUnreachable).await;
        assert_eq!(error.unwrap_err().code(), Code::AddressDenied);
        let error = AddressRules::default().resolve("no-such-name.invalid", 1, Code::SourceUnreachable).await;
        assert_eq!(error.unwrap_err().code(), Code::SourceUnreachable);
    }
}
