//! Strongly connected components (Tarjan 1972), without recursion: a history has a hundred thousand vertices.
//!
//! Own code: the one algorithm is shorter than the dependency that would bring it.

/// Edges as (from, to), over vertices 0..n.
pub(crate) struct Graph {
    /// `targets[starts[v]..starts[v + 1]]` are v's successors.
    starts: Vec<usize>,
    targets: Vec<usize>,
}

impl Graph {
    pub fn new(n: usize, edges: &mut Vec<(usize, usize)>) -> Graph {
        edges.sort_unstable();
        edges.dedup();
        let mut starts = vec![0; n + 1];
        for (from, _) in edges.iter() {
            starts[from + 1] += 1;
        }
        for v in 0..n {
            starts[v + 1] += starts[v];
        }
        Graph { starts, targets: edges.iter().map(|(_, to)| *to).collect() }
    }

    pub fn successors(&self, v: usize) -> &[usize] {
        &self.targets[self.starts[v]..self.starts[v + 1]]
    }

    /// Components of more than one vertex, each sorted, in order of their least vertex. There are no loops.
    pub fn cycles(&self) -> Vec<Vec<usize>> {
        const UNSEEN: usize = usize::MAX;
        let n = self.starts.len() - 1;
        let (mut index, mut low) = (vec![UNSEEN; n], vec![0; n]);
        let mut on_stack = vec![false; n];
        let (mut stack, mut calls) = (Vec::new(), Vec::new());
        let (mut next, mut found) = (0, Vec::new());
        for root in 0..n {
            if index[root] != UNSEEN {
                continue;
            }
            calls.push((root, 0));
            while let Some((v, edge)) = calls.pop() {
                if edge == 0 {
                    (index[v], low[v], on_stack[v]) = (next, next, true);
                    next += 1;
                    stack.push(v);
                }
                match self.successors(v).get(edge).copied() {
                    Some(to) => {
                        calls.push((v, edge + 1));
                        if index[to] == UNSEEN {
                            calls.push((to, 0));
                        } else if on_stack[to] {
                            low[v] = low[v].min(index[to]);
                        }
                    }
                    None => {
                        if let Some((parent, _)) = calls.last() {
                            low[*parent] = low[*parent].min(low[v]);
                        }
                        if low[v] == index[v] {
                            let at = stack
                                .iter()
                                .rposition(|x| *x == v)
                                .expect("a vertex is on the stack until its root ends");
                            let mut component = stack.split_off(at);
                            component.iter().for_each(|x| on_stack[*x] = false);
                            if component.len() > 1 {
                                component.sort_unstable();
                                found.push(component);
                            }
                        }
                    }
                }
            }
        }
        found.sort();
        found
    }

    /// Whether `to` can be reached from `from` within a sorted component.
    pub fn reaches(&self, from: usize, to: usize, within: &[usize]) -> bool {
        let mut seen = vec![false; within.len()];
        let mut open = vec![from];
        while let Some(v) = open.pop() {
            if v == to {
                return true;
            }
            for next in self.successors(v) {
                if let Ok(i) = within.binary_search(next)
                    && !std::mem::replace(&mut seen[i], true)
                {
                    open.push(*next);
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_components_of_more_than_one() {
        let mut edges = vec![(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 3), (5, 6)];
        assert_eq!(Graph::new(7, &mut edges).cycles(), [vec![0, 1, 2], vec![3, 4]]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let mut edges: Vec<_> = (0..200_000).map(|v| (v, v + 1)).collect();
        assert!(Graph::new(200_001, &mut edges).cycles().is_empty());
        edges.push((200_000, 0));
        assert_eq!(Graph::new(200_001, &mut edges).cycles()[0].len(), 200_001);
    }

    proptest! {
        #[test]
        fn two_vertices_are_together_if_each_reaches_the_other(
            mut edges in prop::collection::vec((0usize..9, 0usize..9), 0..25)
        ) {
            edges.retain(|(a, b)| a != b);
            let graph = Graph::new(9, &mut edges);
            let all: Vec<usize> = (0..9).collect();
            let cycles = graph.cycles();
            for a in 0..9 {
                for b in 0..9 {
                    let together = cycles.iter().any(|c| c.contains(&a) && c.contains(&b));
                    prop_assert_eq!(a != b && together, a != b && graph.reaches(a, b, &all) && graph.reaches(b, a, &all));
                }
            }
        }
    }
}
