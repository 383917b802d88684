//! The one list of all effects. A new effect is a new file and a line here.

use std::sync::Arc;

use ooblex_pipeline::EffectName;

use crate::background_blur::BackgroundBlur;
use crate::background_replace::BackgroundReplace;
use crate::delay::Delay;
use crate::effect::Effect;
use crate::face_anonymize::FaceAnonymize;
use crate::face_detection::FaceDetection;
use crate::face_mesh::FaceMesh;
use crate::none::NoEffect;
use crate::simple::SIMPLE;
use crate::style_transfer::StyleTransfer;

/// Returns all effects offered to users, in the order in which they are offered.
pub fn effects() -> Vec<Arc<dyn Effect>> {
    let with_models: [Arc<dyn Effect>; 6] = [
        Arc::new(BackgroundBlur),
        Arc::new(BackgroundReplace),
        Arc::new(FaceAnonymize),
        Arc::new(FaceMesh),
        Arc::new(FaceDetection),
        Arc::new(StyleTransfer),
    ];
    let simple = SIMPLE.into_iter().map(|facts| Arc::new(facts) as Arc<dyn Effect>);
    with_models.into_iter().chain(simple).chain([Arc::new(NoEffect) as Arc<dyn Effect>]).collect()
}

/// Returns the effects for tests, benchmarks and diagnostics, which are not offered to users.
pub fn diagnostics() -> Vec<Arc<dyn Effect>> {
    vec![Arc::new(Delay)]
}

/// Returns the effect of this name among those offered to users.
pub fn find(name: &EffectName) -> Option<Arc<dyn Effect>> {
    effects().into_iter().find(|effect| effect.name() == *name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::parameters::{Parameters, schema};

    #[test]
    fn every_effect_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<_> = effects().iter().map(|effect| effect.name()).collect();
        assert_eq!(names.len(), effects().len());
        for name in names {
            assert_eq!(find(&name).expect("it is in the list").name(), name);
        }
        assert!(find(&EffectName::new("no_such_effect")).is_none());
    }

    #[test]
    fn diagnostics_have_names_of_their_own_and_nobody_is_offered_them() {
        for effect in diagnostics() {
            assert!(find(&effect.name()).is_none(), "{}", effect.name());
        }
    }

    #[test]
    fn effects_with_models_need_a_worker_and_so_do_diagnostics() {
        for effect in effects() {
            assert_eq!(effect.needs_worker(), !effect.models().is_empty(), "{}", effect.name());
        }
        assert!(diagnostics().iter().all(|effect| effect.needs_worker()));
    }

    #[test]
    fn every_default_is_accepted_by_its_own_declaration() {
        for effect in effects().into_iter().chain(diagnostics()) {
            let defaults = Parameters::defaults(effect.parameters());
            assert_eq!(Parameters::parse(effect.parameters(), &defaults.to_json()).unwrap(), defaults, "{}", effect.name());
            assert!(schema(effect.parameters())["properties"].is_object());
        }
    }
}
