//! Which network paths were proven by whom: the newest two distinct answerers of each path are enough to name one that is not the
//! assembly in question.

use std::collections::BTreeMap;
use std::time::Duration;

use cpe_proto::id::{AssemblyIndex, Name};
use cpe_proto::time::Timestamp;

/// Most paths that are kept: a path is an entry of the configuration, and there are few.
const PATHS_MAX: usize = 1024;

#[derive(Clone, Debug)]
struct Answer {
    deployable: Name,
    assembly: AssemblyIndex,
    at: Timestamp,
}

impl Answer {
    fn is_of(&self, deployable: &Name, assembly: AssemblyIndex) -> bool {
        self.assembly == assembly && self.deployable == *deployable
    }
}

/// The newest two answerers of each path, newest first.
#[derive(Debug, Default)]
pub(super) struct Paths(BTreeMap<Box<str>, [Option<Answer>; 2]>);

impl Paths {
    pub(super) fn answered(
        &mut self,
        path: &str,
        deployable: &Name,
        assembly: AssemblyIndex,
        now: Timestamp,
    ) {
        if let Some(newest) = self.0.get_mut(path) {
            if newest[0].as_ref().is_some_and(|answer| !answer.is_of(deployable, assembly)) {
                newest.swap(0, 1);
            }
            newest[0] = Some(Answer { deployable: deployable.clone(), assembly, at: now });
        } else if self.0.len() < PATHS_MAX {
            self.0.insert(
                path.into(),
                [Some(Answer { deployable: deployable.clone(), assembly, at: now }), None],
            );
        }
    }

    pub(super) fn answered_by_another(
        &self,
        path: &str,
        except: (&Name, AssemblyIndex),
        now: Timestamp,
    ) -> Option<(Duration, (Name, AssemblyIndex))> {
        let newest = self.0.get(path)?.iter().flatten().find(|answer| !answer.is_of(except.0, except.1))?;
        Some((now.since(newest.at), (newest.deployable.clone(), newest.assembly)))
    }
}
