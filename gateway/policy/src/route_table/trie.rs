//! The path patterns of one host pattern as a tree of segments.

use crate::route::{MAX_PARAMS, Segment};

/// A pattern's index in the route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafId(pub(super) u32);

impl LeafId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The segments that parameters took, as they were sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken<'p> {
    segments: [&'p [u8]; MAX_PARAMS],
    len: usize,
}

impl<'p> Taken<'p> {
    pub(super) fn get(&self, index: usize) -> Option<&'p [u8]> {
        self.segments[..self.len].get(index).copied()
    }

    fn push(&mut self, segment: &'p [u8]) {
        if let Some(place) = self.segments.get_mut(self.len) {
            *place = segment;
            self.len += 1;
        }
    }

    fn pop(&mut self) {
        self.len = self.len.saturating_sub(1);
    }
}

/// Each node is the patterns that share a beginning. What a lookup visits are nodes, each at most
/// once, and as many levels as the longest pattern has segments.
#[derive(Clone, Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Sorted by length, then by bytes.
    literals: Vec<(Box<[u8]>, usize)>,
    param: Option<usize>,
    one: Option<usize>,
    /// The pattern that ends in `**` here.
    rest: Option<LeafId>,
    /// The pattern that ends here.
    end: Option<LeafId>,
}

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl Trie {
    /// Adds a pattern, unless it is there already.
    pub(super) fn insert(&mut self, pattern: &[Segment], leaf: LeafId) {
        let mut node = 0;
        for segment in pattern {
            if *segment == Segment::Rest {
                self.nodes[node].rest.get_or_insert(leaf);
                return;
            }
            node = self.child(node, segment);
        }
        self.nodes[node].end.get_or_insert(leaf);
    }

    fn child(&mut self, node: usize, segment: &Segment) -> usize {
        let new = self.nodes.len();
        let parent = &mut self.nodes[node];
        let child = match segment {
            Segment::Literal(text) => match parent.search::<false>(text.as_bytes()) {
                Ok(found) => parent.literals[found].1,
                Err(place) => {
                    parent.literals.insert(place, (text.as_bytes().into(), new));
                    new
                }
            },
            Segment::Param => *parent.param.get_or_insert(new),
            Segment::One | Segment::Rest => *parent.one.get_or_insert(new),
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child
    }

    /// The most specific pattern that matches a path beginning with `/`. With `FOLD` the patterns are
    /// in lower case, and the path counts as if it were.
    pub(super) fn find<'p, const FOLD: bool>(&self, path: &'p [u8], taken: &mut Taken<'p>) -> Option<LeafId> {
        let segments = path.get(1..).filter(|rest| !rest.is_empty());
        self.descend::<FOLD>(&self.nodes[0], segments, taken)
    }

    /// Tries what is more specific first, so that the first pattern found is the most specific.
    fn descend<'p, const FOLD: bool>(
        &self,
        node: &Node,
        path: Option<&'p [u8]>,
        taken: &mut Taken<'p>,
    ) -> Option<LeafId> {
        let Some(path) = path else {
            return node.end.or(node.rest);
        };
        let (segment, path) = split(path);
        let literal = node
            .search::<FOLD>(segment)
            .ok()
            .map(|found| node.literals[found].1);
        if let Some(leaf) = literal.and_then(|child| self.descend::<FOLD>(&self.nodes[child], path, taken)) {
            return Some(leaf);
        }
        if segment.is_empty() {
            return node.rest;
        }
        if let Some(child) = node.param {
            taken.push(segment);
            if let Some(leaf) = self.descend::<FOLD>(&self.nodes[child], path, taken) {
                return Some(leaf);
            }
            taken.pop();
        }
        let one = node
            .one
            .and_then(|child| self.descend::<FOLD>(&self.nodes[child], path, taken));
        one.or(node.rest)
    }
}

impl Node {
    fn search<const FOLD: bool>(&self, segment: &[u8]) -> Result<usize, usize> {
        self.literals.binary_search_by(|(literal, _)| {
            literal.len().cmp(&segment.len()).then_with(|| match FOLD {
                true => literal
                    .iter()
                    .copied()
                    .cmp(segment.iter().map(u8::to_ascii_lowercase)),
                false => (**literal).cmp(segment),
            })
        })
    }
}

/// The first segment, and what follows its slash.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
        None => (path, None),
    }
}
