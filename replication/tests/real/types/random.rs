//! Random values, the same for the same seed.

use super::literal::Tree;

/// Steele, Lea and Flood's SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn pick(&mut self, choices: &[&str]) -> String {
        choices[self.below(choices.len() as u64) as usize].to_owned()
    }

    pub fn digits(&mut self, most: usize) -> String {
        let count = self.below(most as u64 + 1);
        (0..count)
            .map(|_| char::from(b'0' + if self.below(4) == 0 { 0 } else { self.below(10) as u8 }))
            .collect()
    }

    pub fn number(&mut self, whole: usize, fraction: usize) -> String {
        let sign = self.pick(&["", "-"]);
        format!("{sign}0{}.{}0", self.digits(whole), self.digits(fraction.saturating_sub(1)))
    }

    /// Every printable and unprintable character, those that quoting is about among them most.
    pub fn text(&mut self) -> String {
        let length = if self.below(30) == 0 { 300 } else { self.below(12) };
        match self.below(15) {
            0 => return "NULL".to_owned(),
            1 => return "null".to_owned(),
            2 => return "\\N".to_owned(),
            3 => return "  ".to_owned(),
            _ => {}
        }
        (0..length)
            .map(|_| match self.below(6) {
                0 => *b"\"\\{},;'\t\n\r\x0b\x0c \x08".get(self.below(14) as usize).unwrap() as char,
                1 => char::from(1 + self.below(127) as u8),
                2 => char::from_u32(0x80 + self.below(0xd000) as u32).unwrap(),
                3 => char::from_u32(0x10000 + self.below(0x10_0000) as u32).unwrap(),
                _ => char::from(b'a' + self.below(26) as u8),
            })
            .collect()
    }

    pub fn bytes(&mut self) -> String {
        let length = self.below(40);
        (0..length).fold("\\x".to_owned(), |text, _| format!("{text}{:02x}", self.next() as u8))
    }

    pub fn json(&mut self) -> String {
        self.pick(&[
            "null",
            "{\"b\":1,  \"a\" : [1.50, 1e2, \"x\\u00e9\\n\"], \"b\": null}",
            "\"\"",
            "[]",
            "{}",
            "123456789012345678901234567890.10",
            " true ",
        ])
    }

    /// In the years that every server holds.
    pub fn day(&mut self) -> String {
        format!("{:04}-{:02}-{:02}", 1900 + self.below(400), 1 + self.below(12), 1 + self.below(28))
    }

    pub fn time(&mut self) -> String {
        let fraction = self.pick(&["", ".5", ".120000", ".000001", ".999999"]);
        format!("{:02}:{:02}:{:02}{fraction}", self.below(24), self.below(60), self.below(60))
    }

    pub fn zone(&mut self) -> String {
        self.pick(&["+00", "-08", "+05:30", "-03:30:15", "+00:00:01", "+15:59:59", "-15:59:59"])
    }

    pub fn moment(&mut self) -> String {
        let day = if self.below(2) == 0 { format!("20{:02}-02-28", self.below(100)) } else { self.day() };
        format!("{day} {}", self.time())
    }

    pub fn interval(&mut self) -> String {
        let part = |n: u64| (n as i64 % 1000).to_string();
        format!(
            "{} years {} months {} days {} hours {}.{:06} seconds",
            part(self.next()),
            part(self.next()),
            part(self.next()),
            part(self.next()),
            part(self.next()),
            self.below(1_000_000)
        )
    }

    fn words(&mut self) -> [u16; 8] {
        // Zeros and ones, so that runs of zeros and addresses of the fourth version come up.
        [0; 8].map(|_| match self.below(4) {
            0 | 1 => 0,
            2 => 0xffff,
            _ => self.next() as u16,
        })
    }

    pub fn inet(&mut self) -> String {
        let mask = self.below(2) == 0;
        if self.below(2) == 0 {
            let bits = if mask { format!("/{}", self.below(33)) } else { String::new() };
            return format!("{}{bits}", std::net::Ipv4Addr::from_bits(self.next() as u32));
        }
        let bits = if mask { format!("/{}", self.below(129)) } else { String::new() };
        format!("{}{bits}", self.words().map(|word| format!("{word:x}")).join(":"))
    }

    pub fn cidr(&mut self) -> String {
        if self.below(2) == 0 {
            let bits = self.below(33) as u32;
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            return format!("{}/{bits}", std::net::Ipv4Addr::from_bits(self.next() as u32 & mask));
        }
        let bits = self.below(129) as u32;
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        let address = std::net::Ipv6Addr::from(self.words()).to_bits() & mask;
        format!("{}/{bits}", std::net::Ipv6Addr::from_bits(address))
    }

    pub fn point(&mut self) -> String {
        let number = |n: u64| (n as i32 as f64 / 64.0).to_string();
        format!("({},{})", number(self.next()), number(self.next()))
    }

    pub fn range(&mut self, bound: fn(&mut Random) -> String) -> String {
        let (mut a, mut b) = (bound(self), bound(self));
        if (a.len(), &a) > (b.len(), &b) {
            std::mem::swap(&mut a, &mut b);
        }
        match self.below(4) {
            0 => "empty".to_owned(),
            1 => "(,)".to_owned(),
            2 => format!("[{a},)"),
            _ => format!("[{a},{b}]"),
        }
    }

    pub fn hstore(&mut self) -> String {
        let quoted = |text: String| Tree::Leaf(text).literal(',');
        let pairs: Vec<String> = (0..self.below(4))
            .map(|_| {
                let key = quoted(self.text());
                let value = if self.below(4) == 0 { "NULL".to_owned() } else { quoted(self.text()) };
                format!("{key}=>{value}")
            })
            .collect();
        pairs.join(", ")
    }

    /// An array of so many dimensions.
    pub fn array(&mut self, depth: usize, leaf: fn(&mut Random) -> String) -> Tree {
        if self.below(8) == 0 {
            return Tree::Array(Vec::new());
        }
        let lengths: Vec<u64> = (0..depth).map(|_| 1 + self.below(3)).collect();
        self.block(&lengths, leaf)
    }

    fn block(&mut self, lengths: &[u64], leaf: fn(&mut Random) -> String) -> Tree {
        match lengths {
            [] if self.below(6) == 0 => Tree::Null,
            [] => Tree::Leaf(leaf(self)),
            [length, inner @ ..] => Tree::Array((0..*length).map(|_| self.block(inner, leaf)).collect()),
        }
    }
}
