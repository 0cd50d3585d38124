//! The second half of reading a definition: `count` makes several assemblies of one template, words become indices, and the
//! order is checked for cycles.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cycle::find_cycles;
use super::direct_read;
use super::places::KeyPlaces;
use super::read::{ASSEMBLIES_MAX, AssemblyTemplate, MonitorTemplate, Template};
use super::service::{CheckTemplate, ReferringTemplate, ServiceTemplate};
use super::{
    Assembly, Attribute, Check, Deployable, Direct, Machine, MaintenanceWindow, Monitor, ParameterName, Part,
    Referring, Service,
};
use crate::document::{Report, Text, glob, joined, nearest};
use crate::id::{AssemblyIndex, NAME_MAX_BYTES, Name, ServiceIndex};

/// The most services of one deployable.
pub const SERVICES_MAX: usize = 10_000;

/// The most "this after that" of one deployable, once `count` is expanded.
pub const ORDER_MAX: usize = 100_000;

/// One assembly after expansion: its template and its name.
struct Place {
    template: usize,
    name: String,
    /// The index of its first service.
    first_service: usize,
}

/// The whole deployable as indices.
pub(super) struct Plan<'r, 't> {
    template: &'r Template<'t>,
    report: &'r Report<'t>,
    places: Vec<Place>,
    /// What a reference may name: a template (all of its assemblies) or one assembly.
    names: BTreeMap<String, Vec<usize>>,
    pub(super) assembly_after: Vec<Arc<[u16]>>,
    pub(super) service_after: Vec<Vec<u16>>,
    /// The parameters of each service; and the assemblies, other than its own, that they refer to.
    parameters: Vec<Vec<(ParameterName, Referring)>>,
    refers: Vec<Vec<u16>>,
    /// The parameters that each assembly is made with; and the assemblies whose addresses they need.
    made_with: Vec<BTreeMap<String, Referring>>,
    needs: Vec<Vec<u16>>,
    order: usize,
}

impl<'r, 't> Plan<'r, 't> {
    /// Expands and resolves; problems are reported. None where it is too large to go on.
    pub(super) fn new(template: &'r Template<'t>, report: &'r Report<'t>) -> Option<Self> {
        let size = |counted: fn(&AssemblyTemplate<'_>) -> usize| {
            let of = |assembly: &AssemblyTemplate<'_>| {
                usize::from(assembly.count.unwrap_or(1)) * counted(assembly)
            };
            template.assemblies.iter().map(of).sum::<usize>()
        };
        let limit = |what: &str, is: usize, most: usize| {
            if is > most {
                report.error(
                    template.name_at,
                    format!("{is} {what} in one deployable, expected at most {most}"),
                );
            }
            is <= most
        };
        let small = limit("assemblies", size(|_| 1), ASSEMBLIES_MAX)
            & limit("services", size(|assembly| assembly.services.len()), SERVICES_MAX);
        if !small {
            return None;
        }
        let mut plan = Self {
            template,
            report,
            places: Vec::new(),
            names: BTreeMap::new(),
            assembly_after: Vec::new(),
            service_after: Vec::new(),
            parameters: Vec::new(),
            refers: Vec::new(),
            made_with: Vec::new(),
            needs: Vec::new(),
            order: 0,
        };
        plan.expand();
        plan.resolve()?;
        plan.resolve_made_with()?;
        plan.check_order();
        plan.check_references();
        Some(plan)
    }

    /// Reports references that mean no assembly, or several: once for all assemblies that `count` makes.
    fn check_references(&self) {
        for (place, assembly) in self.template.assemblies.iter().enumerate() {
            let Some(place) = self.places.iter().position(|it| it.template == place) else { continue };
            let services = assembly.services.iter().filter_map(|service| match &service.check {
                Some(CheckTemplate::Direct(direct) | CheckTemplate::FromGuest(direct)) => {
                    Some((direct, service.check_at))
                }
                _ => None,
            });
            let channel = match &assembly.monitor {
                MonitorTemplate::Direct(Some(direct)) => Some((direct, assembly.name.at)),
                _ => None,
            };
            for (direct, at) in services.chain(channel) {
                let tell = |message: String| self.report.absent(at, message);
                direct.resolve(|word| self.meant(place, word, Attribute::Address).map_err(tell).ok());
            }
        }
    }

    /// The assembly that a reference means, seen from one: its own name is itself, whatever `count` makes of that.
    fn meant(&self, own: usize, word: &str, attribute: Attribute) -> Result<AssemblyIndex, String> {
        if self.template.assemblies[self.places[own].template].name.text == word {
            return Ok(AssemblyIndex(narrow(own)));
        }
        let attribute = attribute.as_str();
        match self.names.get(word).map(Vec::as_slice) {
            Some([place]) => Ok(AssemblyIndex(narrow(*place))),
            Some([first, ..]) => Err(format!(
                "`{{{word}.{attribute}}}` may mean several assemblies, expected one of them, as {{{}.{attribute}}}",
                self.places[*first].name
            )),
            _ => Err(format!(
                "no assembly \"{}\" for `{{{0}.{attribute}}}`{}",
                cut(word),
                self.near_assembly(word)
            )),
        }
    }

    fn direct(&self, own: usize, direct: &direct_read::Template) -> Option<Arc<Direct>> {
        direct.resolve(|word| self.meant(own, word, Attribute::Address).ok()).map(Arc::new)
    }

    fn check(&self, own: usize, check: &CheckTemplate) -> Option<Check> {
        match check {
            CheckTemplate::Guest(check) => Some(check.clone()),
            CheckTemplate::Direct(direct) => self.direct(own, direct).map(Check::Direct),
            CheckTemplate::FromGuest(direct) => self.direct(own, direct).map(Check::FromGuest),
        }
    }

    fn line(&self, own: usize, service: &ServiceTemplate<'t>) -> Option<Referring> {
        let line = self.resolve_text(own, service.line.as_ref()?, false)?;
        line.plain().is_none().then_some(line)
    }

    fn monitor(&self, own: usize, monitor: &MonitorTemplate) -> Option<Monitor> {
        match monitor {
            MonitorTemplate::Ssh => Some(Monitor::Ssh),
            MonitorTemplate::Direct(direct) => self.direct(own, direct.as_ref()?).map(Monitor::Direct),
        }
    }

    fn expand(&mut self) {
        let mut first_service = 0;
        for (index, assembly) in self.template.assemblies.iter().enumerate() {
            let names: Vec<String> = match assembly.count {
                None => vec![assembly.name.text.to_owned()],
                Some(count) => (1..=count).map(|number| format!("{}-{number}", assembly.name.text)).collect(),
            };
            if let Some(long) =
                names.iter().find(|name| name.len() > NAME_MAX_BYTES && assembly.count.is_some())
            {
                let message = format!(
                    "`count` makes the name \"{long}\", expected at most {NAME_MAX_BYTES} characters"
                );
                self.report.error(assembly.name.at, message);
            }
            let from = self.places.len();
            for name in names {
                self.refuse_twice(&name, assembly.name.at);
                self.places.push(Place { template: index, name, first_service });
                first_service += assembly.services.len();
            }
            for place in from..self.places.len() {
                let name = self.places[place].name.clone();
                self.names.entry(name).or_default().push(place);
            }
            if assembly.count.is_some() {
                let all = (from..self.places.len()).collect();
                self.names.entry(assembly.name.text.to_owned()).or_insert(all);
            }
        }
    }

    /// Two names in one table are refused by TOML; those that `count` makes are refused here.
    fn refuse_twice(&self, name: &str, at: usize) {
        let Some(earlier) = self.names.get(name).and_then(|places| places.first()) else { return };
        let earlier = &self.template.assemblies[self.places[*earlier].template];
        let place = self.report.position(earlier.name.at);
        let message = format!(
            "assembly \"{name}\" is there twice, expected one: `{}` in line {} is or makes the other",
            earlier.name.text, place.line
        );
        self.report.error(at, message);
    }

    /// None where there is too much order to hold.
    fn resolve(&mut self) -> Option<()> {
        let template = self.template;
        for assembly in &template.assemblies {
            let mut after: Vec<u16> = Vec::new();
            for text in &assembly.after {
                after.extend(self.find_assemblies(*text).iter().map(|index| narrow(*index)));
            }
            after.sort_unstable();
            after.dedup();
            let after: Arc<[u16]> = after.into();
            for _ in 0..assembly.count.unwrap_or(1) {
                self.grow(after.len())?;
                self.assembly_after.push(Arc::clone(&after));
            }
        }
        for place in 0..self.places.len() {
            let assembly = &template.assemblies[self.places[place].template];
            // Each wrong word is reported once, not for each assembly that `count` makes.
            let first = place == 0 || self.places[place - 1].template != self.places[place].template;
            for service in &assembly.services {
                let mut after = Vec::new();
                for text in &service.after {
                    after.extend(self.find_services(place, *text, first));
                }
                after.sort_unstable();
                after.dedup();
                self.grow(after.len())?;
                self.service_after.push(after);
                self.resolve_parameters(place, service, first)?;
            }
        }
        Some(())
    }

    fn resolve_parameters(&mut self, own: usize, service: &ServiceTemplate<'t>, tell: bool) -> Option<()> {
        let (mut parameters, mut refers) = (Vec::new(), Vec::new());
        for parameter in &service.parameters {
            let Some(value) = self.resolve_text(own, &parameter.value, tell) else { continue };
            let others = value.references().map(|it| it.assembly.0).filter(|it| usize::from(*it) != own);
            refers.extend(others);
            parameters.push((parameter.name.clone(), value));
        }
        refers.sort_unstable();
        refers.dedup();
        self.grow(refers.len())?;
        self.parameters.push(parameters);
        self.refers.push(refers);
        if tell && let Some(line) = &service.line {
            self.resolve_text(own, line, true);
        }
        Some(())
    }

    /// A text with the assemblies that it means. None where one means none; it is reported if that is wanted.
    fn resolve_text(&self, own: usize, text: &ReferringTemplate<'t>, tell: bool) -> Option<Referring> {
        for (word, attribute) in text.value.lookalikes().filter(|_| tell) {
            if self.names.contains_key(word) {
                let all = joined(&Attribute::ALL.map(Attribute::as_str), '`', "or");
                let message = format!(
                    "assembly \"{word}\" has no attribute \"{}\" to refer to, expected {all}",
                    cut(attribute)
                );
                self.report.error(text.text.at, message);
            }
        }
        text.value.resolve(|it| match self.meant(own, &it.assembly, it.attribute) {
            Ok(found) => Some(found),
            Err(problem) => {
                if tell {
                    self.report.absent(text.text.at, problem);
                }
                None
            }
        })
    }

    /// The parameters that an infrastructure is given. It is asked to make a machine with them, which has no address before.
    fn resolve_made_with(&mut self) -> Option<()> {
        let template = self.template;
        for own in 0..self.places.len() {
            let first = own == 0 || self.places[own - 1].template != self.places[own].template;
            let (mut made_with, mut needs) = (BTreeMap::new(), Vec::new());
            for (key, text) in &template.assemblies[self.places[own].template].parameters {
                let Some(value) = self.resolve_text(own, text, first) else { continue };
                let addresses = value.references().filter(|it| it.attribute == Attribute::Address);
                needs.extend(addresses.map(|it| it.assembly.0));
                made_with.insert(key.text.to_owned(), value);
            }
            needs.sort_unstable();
            needs.dedup();
            if first && needs.iter().any(|it| usize::from(*it) == own) {
                let assembly = &template.assemblies[self.places[own].template];
                let message = format!(
                    "`parameters` of \"{}\" refer to its own address, which is not known before it is made; the infrastructure is told it as `address`",
                    assembly.name.text
                );
                let at = assembly.parameters.first().map_or(assembly.name.at, |(key, _)| key.at);
                self.report.error(at, message);
            }
            needs.retain(|it| usize::from(*it) != own);
            self.grow(needs.len())?;
            self.made_with.push(made_with);
            self.needs.push(needs);
        }
        Some(())
    }

    fn grow(&mut self, by: usize) -> Option<()> {
        self.order += by;
        if self.order > ORDER_MAX {
            let message =
                format!("`after` makes more than {ORDER_MAX} pairs in one deployable, expected fewer");
            self.report.error(self.template.name_at, message);
        }
        (self.order <= ORDER_MAX).then_some(())
    }

    fn find_assemblies(&self, text: Text<'_>) -> &[usize] {
        if let Some(found) = self.names.get(text.text) {
            return found;
        }
        let near = self.near_assembly(text.text);
        self.report.absent(text.at, format!("no assembly \"{}\" for `after`{near}", cut(text.text)));
        &[]
    }

    /// The services that a service's `after` names: `service` of the same assembly, or `assembly/service`.
    fn find_services(&self, own: usize, text: Text<'_>, tell: bool) -> Vec<u16> {
        let (places, service) = match text.text.split_once('/') {
            None => (vec![own], text.text),
            Some((assembly, service)) => match self.names.get(assembly) {
                Some(found) => (found.clone(), service),
                None if tell => {
                    let near = self.near_assembly(assembly);
                    self.report
                        .absent(text.at, format!("no assembly \"{}\" for `after`{near}", cut(assembly)));
                    return Vec::new();
                }
                None => return Vec::new(),
            },
        };
        let found: Vec<u16> =
            places.iter().filter_map(|place| self.service_of(*place, service)).map(narrow).collect();
        if found.is_empty() && tell {
            self.tell_unknown_service(&places, text, service);
        }
        found
    }

    fn near_assembly(&self, word: &str) -> String {
        if self.report.is_full() {
            String::new()
        } else {
            near_clause(word, self.names.keys().map(String::as_str))
        }
    }

    fn service_of(&self, place: usize, name: &str) -> Option<usize> {
        let place = &self.places[place];
        let services = &self.template.assemblies[place.template].services;
        let nth = services.iter().position(|service| service.name.text == name)?;
        Some(place.first_service + nth)
    }

    fn tell_unknown_service(&self, places: &[usize], text: Text<'_>, service: &str) {
        let Some(place) = places.first().filter(|_| !self.report.is_full()) else { return };
        let assembly = &self.template.assemblies[self.places[*place].template];
        let mut near = near_clause(service, assembly.services.iter().map(|service| service.name.text));
        if !text.text.contains('/') && self.names.contains_key(service) {
            near = format!(
                ", which is an assembly; expected \"{service}/SERVICE\", or `after` of the assembly itself"
            );
        } else if near.is_empty() {
            near = ", expected \"service\" of the same assembly or \"assembly/service\"".to_owned();
        }
        let message = format!(
            "no service \"{}\" in assembly \"{}\" for `after`{near}",
            cut(service),
            assembly.name.text
        );
        self.report.absent(text.at, message);
    }

    /// Three kinds of places in the order: an assembly (it is up), an assembly as a whole (it and its services are healthy),
    /// a service. A whole is after its parts; an assembly is after the wholes it names; a service is after its own assembly, and
    /// after the wholes that its parameters refer to, since it is set up anew once they are healthy again. An assembly is made after those whose
    /// addresses it is made with.
    fn check_order(&self) {
        let (assemblies, services) = (self.places.len(), self.service_after.len());
        let whole = |assembly: usize| assemblies + assembly;
        let service = |index: usize| 2 * assemblies + index;
        let mut after: Vec<Vec<u32>> = Vec::with_capacity(2 * assemblies + services);
        let wholes = |list: &[u16]| list.iter().map(|index| wide(whole(usize::from(*index)))).collect();
        for (list, needs) in self.assembly_after.iter().zip(&self.needs) {
            let mut before: Vec<u32> = wholes(list);
            before.extend(needs.iter().map(|other| u32::from(*other)));
            after.push(before);
        }
        for (index, place) in self.places.iter().enumerate() {
            let own = self.services_at(place);
            after.push(std::iter::once(index).chain(own.map(service)).map(wide).collect());
        }
        for (index, place) in self.places.iter().enumerate() {
            for own in self.services_at(place) {
                let others = self.service_after[own].iter().map(|other| service(usize::from(*other)));
                let referred = self.refers[own].iter().map(|other| whole(usize::from(*other)));
                after.push(others.chain(referred).chain(std::iter::once(index)).map(wide).collect());
            }
        }
        for cycle in find_cycles(&after) {
            self.tell_cycle(&cycle);
        }
    }

    fn services_at(&self, place: &Place) -> std::ops::Range<usize> {
        place.first_service..place.first_service + self.template.assemblies[place.template].services.len()
    }

    fn tell_cycle(&self, cycle: &[u32]) {
        let assemblies = self.places.len();
        let (mut names, mut at): (Vec<String>, Option<usize>) = (Vec::new(), None);
        for node in cycle {
            let node = usize::try_from(*node).unwrap_or(usize::MAX);
            let (name, first) = if node < 2 * assemblies {
                let place = &self.places[node % assemblies];
                let after = &self.template.assemblies[place.template].after;
                (place.name.clone(), after.first().map(|text| text.at))
            } else {
                self.service_named(node - 2 * assemblies)
            };
            at = at.or(first);
            if names.last() != Some(&name) {
                names.push(name);
            }
        }
        if names.len() > 1 && names.first() == names.last() {
            names.pop();
        }
        names.extend(names.first().cloned());
        let refers = self.refers.iter().chain(&self.needs).any(|refers| !refers.is_empty());
        let what = if refers { "`after` and references go" } else { "`after` goes" };
        let message = format!("{what} round in a circle: {}", names.join(" -> "));
        self.report.error(at.unwrap_or(self.template.name_at), message);
    }

    /// A service's name, and where it first names what it is after.
    fn service_named(&self, index: usize) -> (String, Option<usize>) {
        let nth = self.places.partition_point(|place| place.first_service <= index) - 1;
        // Of several places that begin there only the last has services.
        let place = &self.places[nth];
        let service = &self.template.assemblies[place.template].services[index - place.first_service];
        let referring = service.parameters.iter().find(|it| it.value.value.references().next().is_some());
        let at = service.after.first().or(referring.map(|it| &it.value.text)).map(|text| text.at);
        (format!("{}/{}", place.name, service.name.text), at)
    }

    /// The deployable. None where something was reported.
    pub(super) fn build(self) -> Option<Deployable> {
        let maintenance = self.windows();
        if self.report.failed() {
            return None;
        }
        let (mut assemblies, mut services) = (Vec::new(), Vec::new());
        for (index, place) in self.places.iter().enumerate() {
            let template = &self.template.assemblies[place.template];
            let own = self.services_at(place);
            for (nth, service) in own.clone().zip(&template.services) {
                services.push(Service {
                    name: Name::parse(service.name.text).ok()?,
                    assembly: AssemblyIndex(narrow(index)),
                    check: self.check(index, service.check.as_ref()?)?,
                    line: self.line(index, service),
                    restart: service.restart.clone(),
                    parameters: self.parameters[nth].clone(),
                    configure: service.configure.clone(),
                    probe: service.probe,
                    after: self.service_after[nth].iter().copied().map(ServiceIndex).collect(),
                });
            }
            let range = (ServiceIndex(narrow(own.start)), ServiceIndex(narrow(own.end)));
            let after = self.assembly_after[index].iter().copied().map(AssemblyIndex).collect();
            let monitor = self.monitor(index, &template.monitor)?;
            let made = assembly(template, &place.name, monitor, after, range)?;
            assemblies.push(Assembly { parameters: self.made_with[index].clone(), ..made });
        }
        Some(Deployable {
            name: self.template.name.clone()?,
            infrastructure: self.template.infrastructure.clone(),
            mode: self.template.mode,
            escalation: self.template.escalation.clone(),
            timing: self.template.timing,
            maintenance,
            assemblies,
            services,
        })
    }

    /// The windows with the assemblies that they name: by name, by the name that `count` makes several of, or by a glob.
    fn windows(&self) -> Vec<MaintenanceWindow> {
        let windows = self.template.maintenance.iter().map(|template| {
            let mut named: Vec<usize> = Vec::new();
            for text in &template.assemblies {
                let found = match self.names.get(text.text) {
                    Some(found) => found.clone(),
                    None => {
                        let matches = |(index, place): (usize, &Place)| {
                            glob(text.text.as_bytes(), place.name.as_bytes()).then_some(index)
                        };
                        self.places.iter().enumerate().filter_map(matches).collect()
                    }
                };
                if found.is_empty() {
                    let near = self.near_assembly(text.text);
                    let message = format!("no assembly \"{}\" for `maintenance`{near}", cut(text.text));
                    self.report.absent(text.at, message);
                }
                named.extend(found);
            }
            named.sort_unstable();
            named.dedup();
            let assemblies = named.into_iter().map(|index| AssemblyIndex(narrow(index))).collect();
            MaintenanceWindow { assemblies, ..template.window.clone() }
        });
        windows.collect()
    }

    /// Where each window is written, in their order.
    pub(super) fn window_places(&self) -> Vec<usize> {
        self.template.maintenance.iter().map(|window| window.at).collect()
    }

    /// Where the keys of each part are written.
    pub(super) fn key_places(&self) -> impl Iterator<Item = (Part, &'r KeyPlaces)> {
        let template = self.template;
        let assembly = move |(index, place): (usize, &Place)| {
            let services = self.services_at(place).zip(&template.assemblies[place.template].services);
            let services =
                services.map(|(nth, service)| (Part::Service(ServiceIndex(narrow(nth))), &service.keys));
            let own = &template.assemblies[place.template].keys;
            services.chain([(Part::Assembly(AssemblyIndex(narrow(index))), own)])
        };
        let parts = self.places.iter().enumerate().flat_map(assembly);
        parts.chain([(Part::Deployable, &template.keys)])
    }

    /// Where the machine of each assembly is named, in the order of the assemblies.
    pub(super) fn machine_places(&self) -> Vec<usize> {
        self.places.iter().map(|place| self.template.assemblies[place.template].machine_at).collect()
    }
}

fn assembly(
    template: &AssemblyTemplate<'_>,
    name: &str,
    monitor: Monitor,
    after: Vec<AssemblyIndex>,
    services: (ServiceIndex, ServiceIndex),
) -> Option<Assembly> {
    let machine: Machine = template.machine.clone()?;
    Some(Assembly {
        name: Name::parse(name).ok()?,
        machine,
        failure_domains: template.failure_domains.clone(),
        data: template.data,
        max_rung: template.max_rung,
        probe: template.probe,
        monitor,
        ssh: template.ssh.clone(),
        after,
        services,
        parameters: BTreeMap::new(),
        fence: template.fence.clone(),
    })
}

fn near_clause<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> String {
    nearest(word, known).map(|near| format!(", nearest is \"{near}\"")).unwrap_or_default()
}

fn cut(text: &str) -> String {
    text.chars().take(NAME_MAX_BYTES + 1).flat_map(char::escape_debug).collect()
}

/// Both limits are far below what the index holds.
fn narrow(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

fn wide(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
