//! What NAME means among the deployables that are managed now: names, globs and failure domains.

use std::collections::BTreeSet;
use std::sync::Arc;

use cpe_proto::definition::{Assembly, Deployable};
use cpe_proto::id::{AssemblyIndex, Name};
use dped::PartName;

use super::{Fleet, Member};
use crate::api::Refused;
use crate::glob::{Glob, GlobError};
use crate::pauses::Scope;

impl Fleet {
    pub(super) fn deployable(&self, name: &str) -> Result<Name, Refused> {
        let parsed = Name::parse(name).map_err(|error| Refused::bad(error.to_string()))?;
        if self.members().contains_key(&parsed) { Ok(parsed) } else { Err(unknown(name)) }
    }

    /// What a glob, or the name of a failure domain, stands for among deployables and assemblies. A name stands for itself.
    pub(crate) fn places(&self, name: &str) -> Result<Vec<String>, Refused> {
        let wanted: Glob = name.parse().map_err(|error: GlobError| Refused::bad(error.to_string()))?;
        if wanted.is_literal() {
            return Ok(vec![name.to_owned()]);
        }
        let members = self.members();
        let assemblies = || {
            let all =
                members.values().flat_map(|it| it.definition.assemblies.iter().map(move |part| (it, part)));
            all.map(|(it, part)| (format!("{}/{}", it.definition.name, part.name), it, part))
        };
        let found: Vec<String> = match (wanted.domain(), wanted.segments().len()) {
            (Some(domain), _) => {
                let inside =
                    |part: &Assembly| part.failure_domains.iter().any(|it| domain.matches(it.as_str()));
                assemblies().filter(|(_, _, part)| inside(part)).map(|(place, ..)| place).collect()
            }
            (None, 1) => {
                members.keys().filter(|it| wanted.may_match(it.as_str())).map(ToString::to_string).collect()
            }
            (None, 2) => {
                let meant = |it: &Member, part: &Assembly| {
                    wanted.matches(&[it.definition.name.as_str(), part.name.as_str()])
                };
                assemblies().filter(|(_, it, part)| meant(it, part)).map(|(place, ..)| place).collect()
            }
            _ => return Err(Refused::bad(format!("{name} means services; name deployables or assemblies"))),
        };
        if found.is_empty() { Err(unknown(name)) } else { Ok(found) }
    }

    /// What a pause of that name is of: everything, the failure domains, the deployables or their parts that a glob stands for now. What was paused by
    /// its name can be resumed by it, whether there is such a thing still or not.
    pub(super) fn paused_by(&self, name: Option<String>) -> Result<Vec<Scope>, Refused> {
        let Some(name) = name else { return Ok(vec![Scope::Everything]) };
        let wanted: Glob = name.parse().map_err(|error: GlobError| Refused::bad(error.to_string()))?;
        if let Some(domain) = wanted.domain() {
            let all = self.domains().into_iter().chain(self.pauses.domains());
            let found: BTreeSet<Name> = all.filter(|it| domain.matches(it.as_str())).collect();
            return if found.is_empty() {
                Err(unknown(&name))
            } else {
                Ok(found.into_iter().map(Scope::Domain).collect())
            };
        }
        if wanted.segments().len() > 1 {
            return self.paused_parts(&name, &wanted);
        }
        if let Some(scope) = Name::parse(&name).ok().map(Scope::Deployable)
            && self.pauses.contains(&scope)
        {
            return Ok(vec![scope]);
        }
        let deployable = |name: String| self.deployable(&name).map(Scope::Deployable);
        self.places(&name)?.into_iter().map(deployable).collect()
    }

    /// The assemblies or services that a name or a glob of them stands for, and those paused before that it names.
    fn paused_parts(&self, name: &str, wanted: &Glob) -> Result<Vec<Scope>, Refused> {
        if let Some((deployable, part)) = name.split_once('/')
            && let (Ok(deployable), Some(part)) = (Name::parse(deployable), PartName::parse(part))
        {
            let scope = Scope::Part(deployable, part);
            if self.pauses.contains(&scope) {
                return Ok(vec![scope]);
            }
        }
        let members = self.members();
        let mut found = Vec::new();
        for (deployable, definition) in members.values().map(|it| (&it.definition.name, &it.definition)) {
            let mut add = |assembly: &Name, service: Option<&Name>| {
                let names = [Some(deployable), Some(assembly), service];
                let names: Vec<&str> = names.into_iter().flatten().map(Name::as_str).collect();
                if wanted.segments().len() == names.len() && wanted.matches(&names) {
                    let part = PartName { assembly: assembly.clone(), service: service.cloned() };
                    found.push(Scope::Part(deployable.clone(), part));
                }
            };
            for index in definition.assembly_indices() {
                let assembly = &definition.assembly(index).name;
                add(assembly, None);
                definition
                    .services_of(index)
                    .for_each(|it| add(assembly, Some(&definition.service(it).name)));
            }
        }
        if found.is_empty() { Err(unknown(name)) } else { Ok(found) }
    }

    /// Every failure domain of a definition.
    fn domains(&self) -> BTreeSet<Name> {
        let members = self.members();
        let assemblies = members.values().flat_map(|member| &member.definition.assemblies);
        assemblies.flat_map(|assembly| assembly.failure_domains.iter().cloned()).collect()
    }

    /// `deployable` or `deployable/assembly`, as far as there is such.
    pub(crate) fn place(&self, name: &str) -> Result<(Name, Option<AssemblyIndex>), Refused> {
        let Some((deployable, assembly)) = name.split_once('/') else {
            return Ok((self.deployable(name)?, None));
        };
        let deployable = self.deployable(deployable)?;
        let members = self.members();
        let index = members.get(&deployable).and_then(|member| member.definition.assembly_named(assembly));
        index.map(|index| (deployable, Some(index))).ok_or_else(|| unknown(name))
    }

    /// What runs under that name.
    pub(crate) fn definition_of(&self, name: &Name) -> Option<Arc<Deployable>> {
        self.members().get(name).map(|member| Arc::clone(&member.definition))
    }
}

pub(crate) fn unknown(name: &str) -> Refused {
    Refused::not_found(format!("there is no {name:?} here; `cpe status` lists what there is"))
}
