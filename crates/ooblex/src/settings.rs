//! What a track is asked to do: an effect with checked parameters.

use std::sync::Arc;
use std::time::Duration;

use ooblex_effects::{Effect, Parameters, WhenSlow};
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

/// An effect with checked parameters.
#[derive(Clone)]
pub struct Settings {
    /// The effect.
    pub effect: Arc<dyn Effect>,
    /// Its parameters.
    pub parameters: Arc<Parameters>,
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
        if !known(default) {
            let detail = format!("serve.default_effect = \"{default}\" names no effect; known: {}", names());
            return Err(Problem::new(ProblemKind::UnknownEffect, detail));
        }
        let served = served(&effects, &config.worker.effects)?;
        let modes = effects.iter().map(|effect| mode(effect.as_ref(), config)).collect();
        let default_effect = EffectName::new(default.as_str());
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

    /// The effect of sessions that ask for none.
    pub fn default_effect(&self) -> &EffectName {
        &self.default_effect
    }

    /// Checks what was asked for. Without a name: the default effect.
    ///
    /// # Errors
    /// When the effect is unknown or a parameter is not accepted.
    pub fn settings(&self, name: Option<&str>, parameters: &Value) -> Result<Settings, Problem> {
        let name = name.unwrap_or(self.default_effect.as_str());
        let Some(index) = self.effects.iter().position(|e| e.name().as_str() == name) else {
            let known: Vec<_> = self.effects.iter().map(|e| e.name().to_string()).collect();
            let name: String = name.chars().take(60).collect();
            let detail = format!("there is no effect '{name}'; ask for one of {}", known.join(", "));
            return Err(Problem::new(ProblemKind::UnknownEffect, detail));
        };
        let effect = self.effects[index].clone();
        let parameters = Parameters::parse(effect.parameters(), parameters)
            .map_err(|error| Problem::new(ProblemKind::BadParameter, format!("{}: {error}", effect.name())))?;
        Ok(Settings { effect, parameters: Arc::new(parameters), mode: self.modes[index] })
    }

    /// Checks a change of the settings in force. Without a name the effect stays, and parameters that are not given keep
    /// their values; with one, they are the defaults.
    ///
    /// # Errors
    /// As [`Catalogue::settings`].
    pub fn change(&self, current: &Settings, name: Option<&str>, parameters: &Value) -> Result<Settings, Problem> {
        let current_name = current.effect.name();
        if name.is_some_and(|name| name != current_name.as_str()) {
            return self.settings(name, parameters);
        }
        let mut merged = current.parameters.to_json();
        match (name, parameters) {
            (Some(_), given) => merged = given.clone(),
            (None, Value::Object(given)) => given.iter().for_each(|(name, value)| merged[name] = value.clone()),
            (None, Value::Null) => {}
            (None, other) => merged = other.clone(),
        }
        self.settings(Some(current_name.as_str()), &merged)
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
