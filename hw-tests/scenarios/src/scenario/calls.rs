//! The system calls of a node's process, counted by strace where there is one. It makes the process several times slower.

use super::Node;
use crate::agent;

/// An strace at work.
pub struct Calls {
    node: Node,
    /// Where it writes, on the node's machine.
    folder: String,
}

impl Calls {
    /// Begins to count; `None`: the machine has no strace, or it may not.
    pub async fn of(node: &Node, pid: u32) -> agent::Result<Option<Calls>> {
        let begin = format!(
            "command -v strace >/dev/null || exit 0; out=$(mktemp -d); \
             setsid strace -f -c -U calls,name -o $out/calls -p {pid} </dev/null >/dev/null 2>&1 & \
             echo $! >$out/pid; \
             for ((i = 0; i < 100; i++)); do \
               grep -q '^TracerPid:.[1-9]' /proc/{pid}/status && echo $out && exit; sleep 0.1; \
             done; kill $!; rm -r $out"
        );
        let folder = node.shell(begin).await?;
        Ok((!folder.is_empty()).then(|| Calls { node: node.clone(), folder }))
    }

    /// Stops, and gives how often each call was made, the most frequent one first.
    pub async fn end(self) -> agent::Result<Vec<(String, u64)>> {
        let folder = &self.folder;
        let end = format!(
            "read -r pid <{folder}/pid; kill $pid; \
             for ((i = 0; i < 100; i++)); do [ -s {folder}/calls ] && break; sleep 0.1; done; \
             cat {folder}/calls; rm -r {folder}"
        );
        let table = self.node.shell(end).await?;
        let mut calls: Vec<(String, u64)> = table.lines().filter_map(row).collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(calls)
    }
}

/// A row such as `   123 recvfrom`; neither the head nor the sum.
fn row(line: &str) -> Option<(String, u64)> {
    let (count, name) = line.trim().split_once(' ')?;
    let name = name.trim();
    if name == "total" { None } else { Some((name.to_owned(), count.parse().ok()?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table_are_read_and_nothing_else() {
        let table = "    calls syscall\n--------- ----------------\n     1234 recvfrom\n       66 futex\n--------- ----------------\n     1300 total";
        let rows: Vec<_> = table.lines().filter_map(row).collect();
        assert_eq!(rows, [("recvfrom".to_owned(), 1234), ("futex".to_owned(), 66)]);
    }
}
