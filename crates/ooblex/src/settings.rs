//! What a track is asked to do: an effect with checked parameters.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ooblex_effects::{Chain, ChainError, ChainParameters, CustomEffect, CustomEffectSet, Effect, Refused, WhenSlow};
use ooblex_pipeline::{EffectName, Mode};
use serde_json::{Value, json};

use crate::config::{Config, WhenSlowConfig};
use crate::problem::{Problem, ProblemKind};

/// The effects that can be asked for, with what the operator says of them. Those of the program stay; those of the folder of effects of one's
/// own can be replaced while sessions run.
pub struct Catalogue {
    built_in: Vec<Arc<dyn Effect>>,
    config: Config,
    default_effect: EffectName,
    menu: RwLock<Arc<Menu>>,
}

/// What is offered at a time.
struct Menu {
    effects: Vec<Arc<dyn Effect>>,
    served: Vec<Arc<dyn Effect>>,
    modes: Vec<Mode>,
    refused: Vec<Refused>,
}

/// An effect, or several in a row, with checked parameters.
#[derive(Clone)]
pub struct Settings {
    /// The effect, or the chain of them.
    pub effect: Arc<Chain>,
    /// Its parameters.
    pub parameters: Arc<ChainParameters>,
    /// What its tracks show while the models are slower than the camera.
    pub mode: Mode,
}

/// Who changed the settings of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedBy {
    /// A request to the API, such as an operator's.
    Api,
    /// The browser of the session itself, over its data channel.
    Channel,
    /// The effects of the operator were read again, and one that is in force was replaced.
    Reload,
}

impl ChangedBy {
    /// The word for browsers.
    pub fn label(self) -> &'static str {
        match self {
            ChangedBy::Api => "api",
            ChangedBy::Channel => "channel",
            ChangedBy::Reload => "reload",
        }
    }
}

impl Settings {
    /// Whether both ask for the same versions of the same effects with equal parameters.
    pub fn is_same(&self, other: &Self) -> bool {
        self.effect.version() == other.effect.version() && self.parameters.to_json() == other.parameters.to_json()
    }
}

impl Catalogue {
    /// All effects that are compiled in, and those of the folder of effects of one's own that can be read, as the operator configures them. What
    /// is wrong with a folder is told by [`Catalogue::refused`].
    ///
    /// # Errors
    /// When the configuration names an effect that does not exist.
    pub fn new(config: &Config) -> Result<Self, Problem> {
        let mut built_in = ooblex_effects::effects();
        if config.diagnostics.effects {
            built_in.extend(ooblex_effects::diagnostics());
        }
        let own = read_custom_effects(config, &built_in);
        let effects = all(&built_in, &own.effects);
        // A folder that is refused may be mended while the program runs; until then its effect is one that nobody can have.
        let refused = |name: &str| own.refused.iter().any(|refused| refused.folder == name);
        let names = || effects.iter().map(|e| e.name().to_string()).collect::<Vec<_>>().join(", ");
        let known = |name: &str| effects.iter().any(|e| e.name().as_str() == name) || refused(name);
        if let Some(unknown) = config.effects.keys().find(|name| !known(name)) {
            let detail = format!("[effects.{unknown}] in the configuration names no effect; known: {}", names());
            return Err(Problem::new(ProblemKind::UnknownEffect, detail));
        }
        let default = &config.serve.default_effect;
        let default_effect = match Chain::parse(default, &effects) {
            Ok(chain) => chain.name(),
            Err(ChainError::Unknown { name }) if refused(&name) => EffectName::new(default.as_str()),
            Err(ChainError::Unknown { .. }) => {
                let detail = format!("serve.default_effect = \"{default}\" names no effect; known: {}", names());
                return Err(Problem::new(ProblemKind::UnknownEffect, detail));
            }
            Err(error) => return Err(Problem::new(ProblemKind::BadChain, format!("serve.default_effect: {error}"))),
        };
        check_served(&effects, &config.worker.effects, &refused)?;
        let menu = RwLock::new(Arc::new(Menu::new(effects, own.refused, config)));
        Ok(Self { built_in, config: config.clone(), default_effect, menu })
    }

    /// Reads the folder of effects of one's own again; what is offered does not change by that.
    pub fn read_custom_effects(&self) -> CustomEffectSet {
        read_custom_effects(&self.config, &self.built_in)
    }

    /// From now on these are the effects of one's own.
    pub fn offer_custom_effects(&self, own: &CustomEffectSet) {
        let menu = Menu::new(all(&self.built_in, &own.effects), own.refused.clone(), &self.config);
        *self.menu.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(menu);
    }

    /// The folders of effects of one's own that are none, and why.
    pub fn refused(&self) -> Vec<Refused> {
        self.menu().refused.clone()
    }

    /// Whether exactly this version of an effect is offered.
    pub fn offers(&self, effect: &dyn Effect) -> bool {
        self.menu().effects.iter().any(|offered| offered.queue() == effect.queue())
    }

    /// The same settings with the effects as they are offered now: where one was replaced since, its parameters are kept as far as they are
    /// accepted. `None`: nothing has changed, or an effect is not offered any more.
    pub fn renewed(&self, settings: &Settings) -> Option<Settings> {
        if settings.effect.parts().iter().all(|part| self.offers(part.as_ref())) {
            return None;
        }
        let name = settings.effect.name();
        let kept = self.settings(Some(name.as_str()), &settings.parameters.to_json());
        kept.or_else(|_| self.settings(Some(name.as_str()), &Value::Null)).ok()
    }

    fn menu(&self) -> Arc<Menu> {
        self.menu.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The effects in the order in which they are offered.
    pub fn effects(&self) -> Vec<Arc<dyn Effect>> {
        self.menu().effects.clone()
    }

    /// The effects that the workers of this process serve.
    pub fn served(&self) -> Vec<Arc<dyn Effect>> {
        self.menu().served.clone()
    }

    /// Whether the workers of this process serve this effect.
    pub fn serves(&self, name: &EffectName) -> bool {
        self.menu().served.iter().any(|effect| effect.name() == *name)
    }

    /// The names of the effects whose frames go to workers, of this process or of others.
    pub fn analysed(&self) -> Vec<EffectName> {
        self.menu().effects.iter().filter(|effect| effect.needs_worker()).map(|effect| effect.name()).collect()
    }

    /// What metrics call the effects: each by its name, and all chains by one.
    pub fn labels(&self) -> impl Iterator<Item = EffectName> {
        self.effects().into_iter().map(|effect| effect.name()).chain([EffectName::new(Chain::LABEL)])
    }

    /// The effect of sessions that ask for none.
    pub fn default_effect(&self) -> &EffectName {
        &self.default_effect
    }

    /// Checks what was asked for: the name of an effect, or several linked by '+'. Without a name: the default effect.
    ///
    /// # Errors
    /// When an effect is unknown, effects can not be chained, or a parameter is not accepted.
    pub fn settings(&self, name: Option<&str>, parameters: &Value) -> Result<Settings, Problem> {
        let menu = self.menu();
        let name = name.unwrap_or(self.default_effect.as_str());
        let effect = Chain::parse(name, &menu.effects).map_err(|error| match error {
            ChainError::Unknown { .. } => {
                let known: Vec<_> = menu.effects.iter().map(|e| e.name().to_string()).collect();
                Problem::new(ProblemKind::UnknownEffect, format!("{error}; ask for one of {}", known.join(", ")))
            }
            error => Problem::new(ProblemKind::BadChain, error.to_string()),
        })?;
        let parameters = effect.parse_parameters(parameters).map_err(|error| Problem::new(ProblemKind::BadParameter, error.to_string()))?;
        let mode = menu.mode(&effect);
        Ok(Settings { effect: Arc::new(effect), parameters: Arc::new(parameters), mode })
    }

    /// Checks a change of the settings in force. Without a name the effect stays, and parameters that are not given keep
    /// their values; with one, they are the defaults.
    ///
    /// # Errors
    /// As [`Catalogue::settings`].
    pub fn change(&self, current: &Settings, name: Option<&str>, parameters: &Value) -> Result<Settings, Problem> {
        match name {
            Some(_) => self.settings(name, parameters),
            None => self.settings(Some(current.effect.name().as_str()), &current.parameters.merged(parameters)),
        }
    }

    /// The effects as the API lists them.
    pub fn describe(&self) -> Value {
        let describe = |effect: &Arc<dyn Effect>| {
            json!({
                "name": effect.name(),
                "title": effect.title(),
                "description": effect.description(),
                "parameters": ooblex_effects::schema(effect.parameters()),
                "models": effect.models().iter().map(|model| model.name).collect::<Vec<_>>(),
                "own": effect.folder().is_some(),
            })
        };
        self.menu().effects.iter().map(describe).collect()
    }
}

impl Menu {
    fn new(effects: Vec<Arc<dyn Effect>>, refused: Vec<Refused>, config: &Config) -> Self {
        let named = &config.worker.effects;
        let is_served = |effect: &Arc<dyn Effect>| {
            effect.needs_worker() && (named.is_empty() || named.iter().any(|name| effect.name().as_str() == name))
        };
        let served = effects.iter().filter(|effect| is_served(effect)).cloned().collect();
        let modes = effects.iter().map(|effect| mode(effect.as_ref(), config)).collect();
        Self { effects, served, modes, refused }
    }

    /// What a chain's tracks show while the models are slower than the camera: as its most demanding effect has it.
    fn mode(&self, chain: &Chain) -> Mode {
        let of =
            |effect: &Arc<dyn Effect>| self.effects.iter().position(|known| known.name() == effect.name()).map(|index| self.modes[index]);
        chain.analysed().filter_map(of).fold(Mode::Direct, |mode, other| match (mode, other) {
            (Mode::Hold, _) | (_, Mode::Hold) => Mode::Hold,
            (Mode::Reuse { max_age: a }, Mode::Reuse { max_age: b }) => Mode::Reuse { max_age: a.min(b) },
            (Mode::Direct, other) => other,
            (mode, Mode::Direct) => mode,
        })
    }
}

/// Whether all effects that the operator names for the workers are some that need workers.
fn check_served(effects: &[Arc<dyn Effect>], named: &[String], refused: &dyn Fn(&str) -> bool) -> Result<(), Problem> {
    let needing = || effects.iter().filter(|effect| effect.needs_worker());
    let is_known = |name: &String| needing().any(|effect| effect.name().as_str() == name) || refused(name);
    let Some(unknown) = named.iter().find(|name| !is_known(name)) else { return Ok(()) };
    let known: Vec<_> = needing().map(|effect| effect.name().to_string()).collect();
    let hidden = ooblex_effects::diagnostics().iter().any(|effect| effect.name().as_str() == unknown);
    let mend = if hidden { "; with --diagnostics it is one" } else { "" };
    let detail = format!("worker.effects: \"{unknown}\" is no effect that needs a worker; those are: {}{mend}", known.join(", "));
    Err(Problem::new(ProblemKind::UnknownEffect, detail))
}

/// The effects of one's own, as far as they can be read.
fn read_custom_effects(config: &Config, built_in: &[Arc<dyn Effect>]) -> CustomEffectSet {
    let own = &config.own_effects;
    // Names that metrics have for something else, and those of the effects of diagnostics, which other processes may have.
    let reserved = [Chain::LABEL, "unknown", "own"].map(EffectName::new);
    let hidden = ooblex_effects::diagnostics();
    let taken: Vec<_> = built_in.iter().chain(&hidden).map(|effect| effect.name()).chain(reserved).collect();
    CustomEffectSet::read(&own.folder, own.limits(), &taken)
}

/// The effects of the program, with those of one's own before the last, which is none.
fn all(built_in: &[Arc<dyn Effect>], own: &[Arc<CustomEffect>]) -> Vec<Arc<dyn Effect>> {
    let own = own.iter().map(|effect| effect.clone() as Arc<dyn Effect>);
    let end = built_in.iter().position(|effect| effect.name().as_str() == "none").unwrap_or(built_in.len());
    built_in[..end].iter().cloned().chain(own).chain(built_in[end..].iter().cloned()).collect()
}

fn mode(effect: &dyn Effect, config: &Config) -> Mode {
    if !effect.needs_worker() {
        return Mode::Direct;
    }
    let configured = config.effects.get(effect.name().as_str()).cloned().unwrap_or_default();
    let own_age = match effect.when_slow() {
        WhenSlow::Reuse { max_age } => Some(max_age),
        WhenSlow::Hold => None,
    };
    let max_age = configured.max_age_ms.map(Duration::from_millis).or(own_age).unwrap_or(Duration::from_millis(200));
    match (configured.when_slow, own_age) {
        (Some(WhenSlowConfig::Reuse), _) | (None, Some(_)) => Mode::Reuse { max_age },
        (Some(WhenSlowConfig::Hold), _) | (None, None) => Mode::Hold,
    }
}
