//! A map from small numbers to items, in pages that are allocated when used. Memory grows with the
//! number of items, not with the largest number, and growth moves no item.

/// The number of items in a page.
const PAGE: usize = 16;

#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Paged<T> {
    pages: Vec<Option<Box<[Option<T>]>>>,
}

impl<T> Default for Paged<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> Paged<T> {
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE)?.as_ref()?.get(at % PAGE)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pages.get_mut(at / PAGE)?.as_mut()?.get_mut(at % PAGE)?.as_mut()
    }

    pub(crate) fn insert(&mut self, at: usize, item: T) -> &mut T {
        self.place(at).insert(item)
    }

    pub(crate) fn get_or_insert_with(&mut self, at: usize, item: impl FnOnce() -> T) -> &mut T {
        self.place(at).get_or_insert_with(item)
    }

    fn place(&mut self, at: usize) -> &mut Option<T> {
        let page = at / PAGE;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let items = self.pages[page].get_or_insert_with(|| (0..PAGE).map(|_| None).collect());
        &mut items[at % PAGE]
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        let page = self.pages.get_mut(at / PAGE)?;
        let items = page.as_mut()?;
        let item = items[at % PAGE].take();
        if items.iter().all(Option::is_none) {
            *page = None;
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_and_go_with_their_items() {
        let mut paged = Paged::default();
        for at in [3, 2_000_000, 17] {
            *paged.insert(at, 0) += at;
        }
        assert_eq!(
            [3, 17, 2_000_000, 4].map(|at| paged.get(at).copied()),
            [Some(3), Some(17), Some(2_000_000), None]
        );
        assert_eq!(paged.pages.iter().flatten().count(), 3);
        assert_eq!((paged.remove(17), paged.remove(17), paged.get_mut(17)), (Some(17), None, None));
        assert_eq!(paged.pages.iter().flatten().count(), 2);
    }
}
