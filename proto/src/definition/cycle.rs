//! Cycles in "this after that". A walk in depth without recursion, for a chain may be thousands long.

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    /// On the path that is walked now.
    Open,
    Done,
}

/// Cycles in a graph given as each node's successors; each begins with its lowest node. Every node is in at most one of them,
/// so that one circle is told once; where circles share nodes, mending the first shows the next.
pub(super) fn find_cycles(after: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut marks = vec![Mark::New; after.len()];
    let mut told = vec![false; after.len()];
    let mut cycles = Vec::new();
    // Each entry: a node and how many of its successors were looked at.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for start in 0..after.len() {
        if marks[start] == Mark::New {
            marks[start] = Mark::Open;
            path.push((start, 0));
        }
        while let Some((node, seen)) = path.last_mut() {
            let Some(next) = after[*node].get(*seen).map(|next| place(*next)) else {
                marks[*node] = Mark::Done;
                path.pop();
                continue;
            };
            *seen += 1;
            match marks[next] {
                Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, 0));
                }
                Mark::Open => tell(&path, next, &mut told, &mut cycles),
                Mark::Done => {}
            }
        }
    }
    cycles
}

fn tell(path: &[(usize, usize)], first: usize, told: &mut [bool], cycles: &mut Vec<Vec<u32>>) {
    let Some(begin) = path.iter().rposition(|(node, _)| *node == first) else { return };
    let mut cycle: Vec<usize> = path[begin..].iter().map(|(node, _)| *node).collect();
    if cycle.iter().any(|node| told[*node]) {
        return;
    }
    for node in &cycle {
        told[*node] = true;
    }
    let lowest = (0..cycle.len()).min_by_key(|nth| cycle[*nth]).unwrap_or(0);
    cycle.rotate_left(lowest);
    cycles.push(cycle.into_iter().filter_map(|node| u32::try_from(node).ok()).collect());
}

fn place(node: u32) -> usize {
    usize::try_from(node).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::find_cycles;

    #[test]
    fn a_circle_is_told_once_from_its_lowest_node() {
        assert_eq!(find_cycles(&[vec![1], vec![2], vec![0]]), [[0, 1, 2]]);
        assert_eq!(find_cycles(&[vec![], vec![3], vec![1], vec![2]]), [[1, 3, 2]]);
        assert_eq!(find_cycles(&[vec![0]]), [[0]]);
        assert_eq!(find_cycles(&[vec![1], vec![0], vec![3], vec![2]]), [[0, 1], [2, 3]]);
    }

    #[test]
    fn what_is_reached_twice_is_no_circle() {
        assert!(find_cycles(&[vec![1, 2], vec![3], vec![3], vec![]]).is_empty());
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let chain: Vec<Vec<u32>> = (1..=100_000).map(|next| vec![next % 100_000]).collect();
        assert_eq!(find_cycles(&chain).len(), 1);
    }
}
