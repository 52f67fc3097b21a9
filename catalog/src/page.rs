//! Lists are given out page by page.
//!
//! Pure: no I/O.

/// Items of a page when the request names no number.
pub const PAGE_SIZE_DEFAULT: u32 = 100;

/// Most items of a page: keeps an answer within a few megabytes.
pub const PAGE_SIZE_MAX: u32 = 1_000;

/// Which page is asked for. `Default` is the first, of the default size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Most items; 0 for the default, larger numbers are cut to [`PAGE_SIZE_MAX`].
    pub size: u32,
    /// [`Page::next`] of the page before; empty for the first.
    pub token: String,
}

impl PageRequest {
    /// The number of items to give out.
    pub fn limit(&self) -> u32 {
        match self.size {
            0 => PAGE_SIZE_DEFAULT,
            size => size.min(PAGE_SIZE_MAX),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in order.
    pub items: Vec<T>,
    /// Token of the next page; none if this is the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of up to one item more than `request` asked for: that one proves that there is a
    /// next page, and is left out.
    pub(crate) fn new(mut items: Vec<T>, request: &PageRequest, token: impl Fn(&T) -> String) -> Self {
        let limit = request.limit() as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(token) } else { None };
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_next_one_exactly_if_an_item_is_left() {
        let request = PageRequest { size: 2, token: String::new() };
        let page = |items: &[i32]| Page::new(items.to_vec(), &request, i32::to_string);
        assert_eq!(page(&[1, 2]), Page { items: vec![1, 2], next: None });
        assert_eq!(page(&[1, 2, 3]), Page { items: vec![1, 2], next: Some("2".into()) });
        assert_eq!(PageRequest::default().limit(), PAGE_SIZE_DEFAULT);
        assert_eq!(PageRequest { size: u32::MAX, ..request.clone() }.limit(), PAGE_SIZE_MAX);
    }
}
