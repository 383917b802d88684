//! Catalogue of offered effects, and the checked settings (effect and parameters) of a session.

use std::sync::Arc;
use std::time::Duration;

use ooblex_effects::{Chain, ChainError, ChainParameters, CustomEffect, CustomEffectSet, Effect, Refused, WhenSlow};
use ooblex_pipeline::{EffectName, Mode};
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::problem::{Problem, ProblemKind};
use ooblex_config::{Config, WhenSlowConfig};

/// The effects that sessions can use, with the operator's configuration. Built-in effects stay;
/// custom effects can be replaced while sessions run.
pub struct Catalogue {
    built_in: Vec<Arc<dyn Effect>>,
    config: Config,
    default_effect: EffectName,
    menu: RwLock<Arc<Menu>>,
}

/// A snapshot of the offered effects; a reload replaces it as a whole.
struct Menu {
    effects: Vec<Arc<dyn Effect>>,
    served: Vec<Arc<dyn Effect>>,
    modes: Vec<Mode>,
    refused: Vec<Refused>,
}

/// An effect or a chain of effects, with checked parameters.
#[derive(Clone)]
pub struct Settings {
    /// The effect, or the chain of effects.
    pub effect: Arc<Chain>,
    /// Parameters of the effect.
    pub parameters: Arc<ChainParameters>,
    /// Output of a track while the models are slower than the camera: the latest result, or a held
    /// frame.
    pub mode: Mode,
}

/// The source of a change of a session's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedBy {
    /// An HTTP request, such as the operator's.
    Api,
    /// A message of the session's own browser on the data channel.
    Channel,
    /// A reload of the custom effects that replaced an effect in use.
    Reload,
}

impl ChangedBy {
    /// Returns the name of the source in messages to the browser.
    pub fn label(self) -> &'static str {
        match self {
            ChangedBy::Api => "api",
            ChangedBy::Channel => "channel",
            ChangedBy::Reload => "reload",
        }
    }
}

impl Settings {
    /// Returns whether both have the same versions of the same effects with equal parameters.
    pub fn is_same(&self, other: &Self) -> bool {
        self.effect.version() == other.effect.version() && self.parameters.to_json() == other.parameters.to_json()
    }
}

impl Catalogue {
    /// Builds the catalogue of the built-in effects and of the custom effects that can be read.
    /// [`Catalogue::refused`] lists the folders that cannot be used.
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
        // A refused folder may be fixed while the program runs; until then its effect is not
        // available.
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

    /// Reads the folder of custom effects. The offered effects do not change.
    pub fn read_custom_effects(&self) -> CustomEffectSet {
        read_custom_effects(&self.config, &self.built_in)
    }

    /// Replaces the offered custom effects.
    pub fn offer_custom_effects(&self, own: &CustomEffectSet) {
        let menu = Menu::new(all(&self.built_in, &own.effects), own.refused.clone(), &self.config);
        *self.menu.write() = Arc::new(menu);
    }

    /// Returns the folders of custom effects that were refused, with the reasons.
    pub fn refused(&self) -> Vec<Refused> {
        self.menu().refused.clone()
    }

    /// Returns whether exactly this version of an effect is offered.
    pub fn offers(&self, effect: &dyn Effect) -> bool {
        self.menu().effects.iter().any(|offered| offered.queue() == effect.queue())
    }

    /// Returns the settings with the current versions of their effects. Parameters are kept if the
    /// new version accepts them, and otherwise reset to the defaults. Returns `None` if all
    /// versions are current, or if an effect is no longer offered.
    pub fn renewed(&self, settings: &Settings) -> Option<Settings> {
        if settings.effect.parts().iter().all(|part| self.offers(part.as_ref())) {
            return None;
        }
        let name = settings.effect.name();
        let kept = self.settings(Some(name.as_str()), &settings.parameters.to_json());
        kept.or_else(|_| self.settings(Some(name.as_str()), &Value::Null)).ok()
    }

    fn menu(&self) -> Arc<Menu> {
        self.menu.read().clone()
    }

    /// Returns the offered effects in their order.
    pub fn effects(&self) -> Vec<Arc<dyn Effect>> {
        self.menu().effects.clone()
    }

    /// Returns the effects that the workers of this process serve.
    pub fn served(&self) -> Vec<Arc<dyn Effect>> {
        self.menu().served.clone()
    }

    /// Returns whether the workers of this process serve an effect.
    pub fn serves(&self, name: &EffectName) -> bool {
        self.menu().served.iter().any(|effect| effect.name() == *name)
    }

    /// Returns the names of the effects whose frames are sent to workers, of this process or
    /// others.
    pub fn analysed(&self) -> Vec<EffectName> {
        self.menu().effects.iter().filter(|effect| effect.needs_worker()).map(|effect| effect.name()).collect()
    }

    /// Returns the effect labels of metrics: the name of each effect, and one label for all chains.
    pub fn labels(&self) -> impl Iterator<Item = EffectName> {
        self.effects().into_iter().map(|effect| effect.name()).chain([EffectName::new(Chain::LABEL)])
    }

    /// Returns the effect of sessions that ask for none.
    pub fn default_effect(&self) -> &EffectName {
        &self.default_effect
    }

    /// Checks a requested effect (one name, or several joined by '+'; `None` for the default
    /// effect) and its parameters.
    ///
    /// # Errors
    /// When an effect is unknown, effects cannot be chained, or a parameter is not accepted.
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

    /// Checks a change of the current settings. Without a name, the effect and the parameters that
    /// are not given stay; with a name, the parameters that are not given have their defaults.
    ///
    /// # Errors
    /// As [`Catalogue::settings`].
    pub fn change(&self, current: &Settings, name: Option<&str>, parameters: &Value) -> Result<Settings, Problem> {
        match name {
            Some(_) => self.settings(name, parameters),
            None => self.settings(Some(current.effect.name().as_str()), &current.parameters.merged(parameters)),
        }
    }

    /// Describes the effects as the API lists them.
    pub fn describe(&self) -> Value {
        let describe = |effect: &Arc<dyn Effect>| {
            json!({
                "name": effect.name(),
                "title": effect.title(),
                "description": effect.description(),
                "parameters": ooblex_effects::schema(effect.parameters()),
                "models": effect.models().iter().map(|model| model.name.as_ref()).collect::<Vec<_>>(),
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

    /// Returns the mode of a chain while the models are slower than the camera: the strictest mode
    /// of its effects.
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

/// Checks that every effect in `worker.effects` exists and needs a worker.
fn check_served(effects: &[Arc<dyn Effect>], named: &[String], refused: &dyn Fn(&str) -> bool) -> Result<(), Problem> {
    let needing = || effects.iter().filter(|effect| effect.needs_worker());
    let is_known = |name: &String| needing().any(|effect| effect.name().as_str() == name) || refused(name);
    let Some(unknown) = named.iter().find(|name| !is_known(name)) else { return Ok(()) };
    let known: Vec<_> = needing().map(|effect| effect.name().to_string()).collect();
    let hidden = ooblex_effects::diagnostics().iter().any(|effect| effect.name().as_str() == unknown);
    let remedy = if hidden { "; with --diagnostics it is one" } else { "" };
    let detail = format!("worker.effects: \"{unknown}\" is not an effect that needs a worker; those are: {}{remedy}", known.join(", "));
    Err(Problem::new(ProblemKind::UnknownEffect, detail))
}

/// Reads the custom effects from their folder.
fn read_custom_effects(config: &Config, built_in: &[Arc<dyn Effect>]) -> CustomEffectSet {
    let own = &config.own_effects;
    // Reserved names: labels with another meaning in metrics, and the diagnostics effects, which
    // other processes may enable.
    let reserved = [Chain::LABEL, "unknown", "own"].map(EffectName::new);
    let hidden = ooblex_effects::diagnostics();
    let taken: Vec<_> = built_in.iter().chain(&hidden).map(|effect| effect.name()).chain(reserved).collect();
    CustomEffectSet::read(&own.folder, own.limits(), &taken)
}

/// Returns the built-in effects with the custom effects inserted before the last one, `none`.
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
