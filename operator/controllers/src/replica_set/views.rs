//! What is seen of the operator's objects, kept as what decisions read of it and nothing else: thousands of members cost little memory,
//! and an update that tells nothing new (a renewed Lease, a status with another time) wakes nobody.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Between wake-ups for what alone is no news. A busy set's status tells positions that are at most this old.
const QUIET_EVERY: Duration = Duration::from_secs(60);

/// An object's set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetKey {
    pub namespace: String,
    pub set: String,
}

/// An object of one kind: its set, and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub of: SetKey,
    pub name: String,
}

/// How much a difference matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Not at all: the time of a report.
    None,
    /// Not by itself: a log position.
    Quiet,
    /// Enough to look at the set.
    Loud,
}

/// What decisions read of an object.
pub trait View: Clone + PartialEq + Send + Sync + 'static {
    /// Takes over from the view before what an object does not say of itself; `None` at the first sight.
    fn follow(&mut self, _before: Option<&Self>) {}

    /// What is new.
    fn news(&self, before: &Self) -> News {
        match self == before {
            true => News::None,
            false => News::Loud,
        }
    }
}

/// A set's.
struct Held<V> {
    views: BTreeMap<String, V>,
    /// When somebody was last woken for them.
    told: Instant,
}

/// The views of one kind.
pub struct Views<V> {
    held: RwLock<HashMap<SetKey, Held<V>>>,
    ready: watch::Sender<bool>,
}

impl<V> Default for Views<V> {
    fn default() -> Views<V> {
        Views {
            held: RwLock::default(),
            ready: watch::Sender::new(false),
        }
    }
}

impl<V: View> Views<V> {
    /// Those of one set, by the objects' names.
    pub fn of(&self, key: &SetKey) -> BTreeMap<String, V> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(key).map(|set| set.views.clone()).unwrap_or_default()
    }

    /// Returns once everything that is there has been seen.
    pub async fn complete(&self) {
        // The sender lives as long as `self`.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Takes a view in. Whether it is news. Nothing is before the first list is complete: the controller begins after that, with a look at
    /// every set, and wake-ups that nobody takes would block the list.
    pub(super) fn put(&self, place: &Place, mut view: V, now: Instant) -> bool {
        let begun = *self.ready.borrow();
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let set = held.entry(place.of.clone()).or_insert_with(|| Held {
            views: BTreeMap::new(),
            told: now,
        });
        let old = set.views.get(&place.name);
        view.follow(old);
        let wakes = match old.map_or(News::Loud, |old| view.news(old)) {
            News::None => false,
            News::Quiet => now.saturating_duration_since(set.told) >= QUIET_EVERY,
            News::Loud => true,
        };
        set.views.insert(place.name.clone(), view);
        if wakes {
            set.told = now;
        }
        begun && wakes
    }

    /// An object is gone. Whether it was there.
    pub(super) fn remove(&self, place: &Place) -> bool {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(set) = held.get_mut(&place.of) else {
            return false;
        };
        let was = set.views.remove(&place.name).is_some();
        if set.views.is_empty() {
            held.remove(&place.of);
        }
        was
    }

    /// A list has ended: what it did not name went unseen. Gives the sets of those.
    pub(super) fn listed(&self, named: &HashSet<Place>) -> Vec<SetKey> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut lost = Vec::new();
        held.retain(|of, set| {
            let before = set.views.len();
            set.views.retain(|name, _| {
                named.contains(&Place {
                    of: of.clone(),
                    name: name.clone(),
                })
            });
            if set.views.len() < before {
                lost.push(of.clone());
            }
            !set.views.is_empty()
        });
        self.ready.send_replace(true);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state, and a position that alone is no news.
    #[derive(Clone, Debug, PartialEq)]
    struct Seen(&'static str, u64);

    impl View for Seen {
        fn news(&self, before: &Seen) -> News {
            match (self.0 == before.0, self.1 == before.1) {
                (true, true) => News::None,
                (true, false) => News::Quiet,
                _ => News::Loud,
            }
        }
    }

    fn place(set: &str, name: &str) -> Place {
        Place {
            of: SetKey {
                namespace: "n".into(),
                set: set.into(),
            },
            name: name.into(),
        }
    }

    #[test]
    fn only_news_wake_and_positions_only_now_and_then() {
        let (views, at) = (Views::default(), place("db", "db-1"));
        let start = Instant::now();
        views.listed(&HashSet::new());
        assert!(views.put(&at, Seen("Serving", 1), start), "new");
        assert!(!views.put(&at, Seen("Serving", 1), start), "the same");
        assert!(!views.put(&at, Seen("Serving", 2), start), "a position alone");
        assert_eq!(
            views.of(&at.of).get("db-1"),
            Some(&Seen("Serving", 2)),
            "kept all the same"
        );
        assert!(
            views.put(&at, Seen("Serving", 3), start + QUIET_EVERY),
            "a position after a while"
        );
        assert!(!views.put(&at, Seen("Serving", 4), start + QUIET_EVERY));
        assert!(
            views.put(&at, Seen("Stopped", 4), start + QUIET_EVERY),
            "a state at once"
        );
        assert!(views.remove(&at));
        assert!(!views.remove(&at), "gone already");
        assert!(views.of(&at.of).is_empty());
    }

    /// More objects than wake-ups may wait must not hold up an operator that starts.
    #[test]
    fn the_first_list_wakes_nobody() {
        let (views, at) = (Views::default(), place("db", "db-1"));
        assert!(!views.put(&at, Seen("Serving", 1), Instant::now()));
        assert!(!views.put(&at, Seen("Stopped", 1), Instant::now()));
        assert!(views.listed(&HashSet::from([at.clone()])).is_empty());
        assert!(views.put(&at, Seen("Serving", 1), Instant::now()));
    }

    #[tokio::test]
    async fn what_a_new_list_does_not_name_is_gone() {
        let views = Views::default();
        let (one, two, other) = (place("db", "db-1"), place("db", "db-2"), place("other", "other-1"));
        for at in [&one, &two, &other] {
            views.put(at, Seen("Serving", 1), Instant::now());
        }
        let lost: HashSet<SetKey> = views.listed(&HashSet::from([two])).into_iter().collect();
        assert_eq!(lost, HashSet::from([one.of.clone(), other.of.clone()]));
        views.complete().await;
        assert_eq!(views.of(&one.of).into_keys().collect::<Vec<_>>(), ["db-2"]);
        assert!(views.of(&other.of).is_empty());
    }
}
