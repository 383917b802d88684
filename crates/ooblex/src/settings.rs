//! What a track is asked to do: an effect with checked parameters.

use std::sync::Arc;
use std::time::Duration;

use ooblex_effects::{Chain, ChainError, ChainParameters, Effect, WhenSlow};
use ooblex_pipeline::{EffectName, Mode};
use serde_json::{Value, json};

use crate::config::{Config, WhenSlowConfig};
use crate::problem::{Problem, ProblemKind};

/// The effects that can be asked for, with what the operator says of them.
pub struct Catalogue {
    effects: Vec<Arc<dyn Effect>>,
    served: Vec<Arc<dyn Effect>>,
    modes: Vec<Mode>,
    default_effect: EffectName,
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

impl Catalogue {
    /// All effects that are compiled in, as the operator configures them.
    ///
    /// # Errors
    /// When the configuration names an effect that does not exist.
    pub fn new(config: &Config) -> Result<Self, Problem> {
        let mut effects = ooblex_effects::effects();
        if config.diagnostics.effects {
            effects.extend(ooblex_effects::diagnostics());
        }
        let names = || effects.iter().map(|e| e.name().to_string()).collect::<Vec<_>>().join(", ");
        let known = |name: &str| effects.iter().any(|e| e.name().as_str() == name);
        if let Some(unknown) = config.effects.keys().find(|name| !known(name)) {
            let detail = format!("[effects.{unknown}] in the configuration names no effect; known: {}", names());
            return Err(Problem::new(ProblemKind::UnknownEffect, detail));
        }
        let default = &config.serve.default_effect;
        let default_effect = match Chain::parse(default, &effects) {
            Ok(chain) => chain.name(),
            Err(ChainError::Unknown { .. }) => {
                let detail = format!("serve.default_effect = \"{default}\" names no effect; known: {}", names());
                return Err(Problem::new(ProblemKind::UnknownEffect, detail));
            }
            Err(error) => return Err(Problem::new(ProblemKind::BadChain, format!("serve.default_effect: {error}"))),
        };
        let served = served(&effects, &config.worker.effects)?;
        let modes = effects.iter().map(|effect| mode(effect.as_ref(), config)).collect();
        Ok(Self { effects, served, modes, default_effect })
    }

    /// The effects in the order in which they are offered.
    pub fn effects(&self) -> &[Arc<dyn Effect>] {
        &self.effects
    }

    /// The effects that the workers of this process serve.
    pub fn served(&self) -> &[Arc<dyn Effect>] {
        &self.served
    }

    /// Whether the workers of this process serve this effect.
    pub fn serves(&self, name: &EffectName) -> bool {
        self.served.iter().any(|effect| effect.name() == *name)
    }

    /// The names of the effects whose frames go to workers, of this process or of others.
    pub fn analysed(&self) -> Vec<EffectName> {
        self.effects.iter().filter(|effect| effect.needs_worker()).map(|effect| effect.name()).collect()
    }

    /// What metrics call the effects: each by its name, and all chains by one.
    pub fn labels(&self) -> impl Iterator<Item = EffectName> {
        self.effects.iter().map(|effect| effect.name()).chain([EffectName::new(Chain::LABEL)])
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
        let name = name.unwrap_or(self.default_effect.as_str());
        let effect = Chain::parse(name, &self.effects).map_err(|error| match error {
            ChainError::Unknown { .. } => {
                let known: Vec<_> = self.effects.iter().map(|e| e.name().to_string()).collect();
                Problem::new(ProblemKind::UnknownEffect, format!("{error}; ask for one of {}", known.join(", ")))
            }
            error => Problem::new(ProblemKind::BadChain, error.to_string()),
        })?;
        let parameters = effect.parse_parameters(parameters).map_err(|error| Problem::new(ProblemKind::BadParameter, error.to_string()))?;
        let mode = self.mode(&effect);
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

    /// The effects as the API lists them.
    pub fn describe(&self) -> Value {
        self.effects
            .iter()
            .map(|effect| {
                json!({
                    "name": effect.name(),
                    "title": effect.title(),
                    "description": effect.description(),
                    "parameters": ooblex_effects::schema(effect.parameters()),
                    "models": effect.models().iter().map(|model| model.name).collect::<Vec<_>>(),
                })
            })
            .collect()
    }
}

/// Those of `effects` that the operator names for the workers; all that need workers when none is named.
fn served(effects: &[Arc<dyn Effect>], named: &[String]) -> Result<Vec<Arc<dyn Effect>>, Problem> {
    let needing: Vec<_> = effects.iter().filter(|effect| effect.needs_worker()).cloned().collect();
    let is_known = |name: &String| needing.iter().any(|effect| effect.name().as_str() == name);
    if let Some(unknown) = named.iter().find(|name| !is_known(name)) {
        let known: Vec<_> = needing.iter().map(|effect| effect.name().to_string()).collect();
        let hidden = ooblex_effects::diagnostics().iter().any(|effect| effect.name().as_str() == unknown);
        let mend = if hidden { "; with --diagnostics it is one" } else { "" };
        let detail = format!("worker.effects: \"{unknown}\" is no effect that needs a worker; those are: {}{mend}", known.join(", "));
        return Err(Problem::new(ProblemKind::UnknownEffect, detail));
    }
    Ok(needing.into_iter().filter(|effect| named.is_empty() || named.iter().any(|name| effect.name().as_str() == name)).collect())
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
