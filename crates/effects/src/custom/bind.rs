//! Checks that a model matches its declaration: names, types and shapes of its tensors. The model
//! is not run.

use super::decode;
use super::error::{CustomEffectError, Place};
use super::graph::{Graph, Value, element_name};
use super::shape::{self, Side};
use super::spec::{Boxes, Declared, Located, Model, Output, TensorName};
use super::toml::{Colours, Layout};
use ooblex_inference::{Extent, TensorSpec};

/// The tensors of a model that are used.
pub(super) struct Fitted {
    /// The picture first, then one for each of `parameters`.
    pub(super) inputs: Vec<TensorSpec>,
    /// Outputs in the order in which [`decode`] reads them.
    pub(super) outputs: Vec<TensorSpec>,
    /// Names of the parameters that are passed to the model.
    pub(super) parameters: Vec<String>,
}

/// Checks the declaration against the graph. `labels` is the number of declared labels, 0 for none.
///
/// # Errors
/// On the first mismatch. Each error names the line of the declaration and the tensor.
pub(super) fn fit(
    model: &Model,
    output: &Output,
    declared: &[Declared],
    labels: usize,
    graph: &Graph,
) -> Result<Fitted, CustomEffectError> {
    let at = |place: &Place, tensor: &str, what: String| CustomEffectError::Tensor {
        place: place.clone(),
        tensor: tensor.into(),
        model: model.file.value.clone(),
        what,
    };
    let picture = picture_input(model, declared, graph, &at)?;
    let [height, width] = [&model.height, &model.width].map(|side| side.value as usize);
    let channels = model.gain.len();
    let wanted = match model.layout {
        Layout::Nchw => [1, channels, height, width],
        Layout::Nhwc => [1, height, width, channels],
    };
    check_picture(model, picture, wanted, &at)?;
    let mut inputs = vec![tensor(&picture.name, wanted.map(Extent::Fixed).to_vec())];
    let mut parameters = Vec::new();
    for Declared { parameter, input } in declared {
        let Some(Located { value: tensor, place }) = input else { continue };
        let value =
            find(&graph.inputs, tensor).ok_or_else(|| at(place, tensor, format!("there is none; {}", names(&graph.inputs, "it takes"))))?;
        check_element(value).map_err(|what| at(place, tensor, what))?;
        let one = value.shape.as_ref().is_some_and(|shape| shape.iter().all(|side| side.is_none_or(|side| side == 1)));
        if !one {
            let is = value.shape.as_deref().map_or("without a shape".into(), shape::words);
            return Err(at(place, tensor, format!("it is {is}, where a parameter is one number: [1]")));
        }
        let sides = vec![Extent::Fixed(1); value.shape.as_ref().map_or(0, Vec::len)];
        inputs.push(self::tensor(tensor, sides));
        parameters.push(parameter.name.to_string());
    }
    if let Some(unbound) = graph.inputs.iter().find(|input| !inputs.iter().any(|used| used.name == input.name)) {
        let remedy = "only the picture and numbers can be given to a model: bind it to a parameter, as [parameters.NAME] with input, min, max, default";
        return Err(at(&model.tensor.place, &unbound.name, format!("it would get no value; {remedy}")));
    }
    let mut outputs = Vec::new();
    match output {
        Output::Picture(picture) => {
            let value = taken(&picture.tensor, graph, &at)?;
            let channels = if picture.colours == Colours::Grey { 1 } else { 3 };
            let of = shape::planes(shape_of(value), picture.layout).and_then(|[c, ..]| match c {
                Some(c) if c != channels => {
                    Err(format!("it is {}, which has {c} channels instead of {channels}", shape::words(shape_of(value))))
                }
                _ => Ok(()),
            });
            of.map_err(|what| at(&picture.tensor.place, &value.name, what))?;
            outputs.push(value);
        }
        Output::Mask(mask) => {
            let value = taken(&mask.tensor, graph, &at)?;
            let [channels, ..] = shape::planes(shape_of(value), mask.layout).map_err(|what| at(&mask.tensor.place, &value.name, what))?;
            let Located { value: channel, place } = &mask.channel;
            if channels.is_some_and(|channels| *channel >= channels) {
                let what = format!("it is {}, which has no channel {channel}: they are counted from 0", shape::words(shape_of(value)));
                return Err(at(place, &value.name, what));
            }
            outputs.push(value);
        }
        Output::Boxes(boxes) => {
            let value = taken(&boxes.tensor, graph, &at)?;
            outputs.push(value);
            if let Some(name) = &boxes.scores {
                outputs.push(taken(name, graph, &at)?);
            }
            check_boxes(boxes, &outputs, labels, &at)?;
        }
        Output::Labels(declared) => {
            let value = taken(&declared.tensor, graph, &at)?;
            let of = shape::classes(shape_of(value)).and_then(|classes| count_labels(labels, classes));
            of.map_err(|what| at(&declared.tensor.place, &value.name, what))?;
            outputs.push(value);
        }
    }
    let outputs = outputs.into_iter().enumerate().map(|(index, value)| output_tensor(value, index)).collect();
    Ok(Fitted { inputs, outputs, parameters })
}

/// Makes an error from a place, a tensor and a description.
type At<'a> = &'a dyn Fn(&Place, &str, String) -> CustomEffectError;

fn picture_input<'a>(model: &Model, declared: &[Declared], graph: &'a Graph, at: At<'_>) -> Result<&'a Value, CustomEffectError> {
    if let Some(name) = &model.tensor.name {
        return find(&graph.inputs, name)
            .ok_or_else(|| at(&model.tensor.place, name, format!("there is none; {}", names(&graph.inputs, "it takes"))));
    }
    let bound = |input: &&Value| declared.iter().any(|declared| declared.input.as_ref().is_some_and(|tensor| tensor.value == input.name));
    let mut free = graph.inputs.iter().filter(|input| !bound(input));
    match (free.next(), free.next()) {
        (Some(only), None) => Ok(only),
        (Some(first), Some(_)) => {
            let what = format!("it is not the only one; {}: name the picture's, as model.tensor = \"…\"", names(&graph.inputs, "it takes"));
            Err(at(&model.tensor.place, &first.name, what))
        }
        (None, _) => Err(at(&model.tensor.place, "", "the model takes no picture".into())),
    }
}

fn check_picture(model: &Model, value: &Value, wanted: [usize; 4], at: At<'_>) -> Result<(), CustomEffectError> {
    check_element(value).map_err(|what| at(&model.tensor.place, &value.name, what))?;
    let shape = shape_of(value);
    let declared = shape::words(&wanted.map(Some));
    if shape.len() != 4 {
        return Err(at(&model.tensor.place, &value.name, format!("it is {}, where a picture is {declared}", shape::words(shape))));
    }
    let layout = shape::name(model.layout);
    let places = match model.layout {
        Layout::Nchw => [&model.tensor.place, &model.tensor.place, &model.height.place, &model.width.place],
        Layout::Nhwc => [&model.tensor.place, &model.height.place, &model.width.place, &model.tensor.place],
    };
    for ((side, wanted), place) in shape.iter().zip(wanted).zip(places) {
        if side.is_some_and(|side| side != wanted) {
            let what = format!("it is {}, and the declaration makes it {declared} (layout = \"{layout}\")", shape::words(shape));
            return Err(at(place, &value.name, what));
        }
    }
    Ok(())
}

fn check_boxes(boxes: &Boxes, tensors: &[&Value], labels: usize, at: At<'_>) -> Result<(), CustomEffectError> {
    let wrong = |name: &TensorName, value: &Value, what| at(&name.place, &value.name, what);
    let [candidates, numbers] = shape::table(shape_of(tensors[0]), boxes.order).map_err(|what| wrong(&boxes.tensor, tensors[0], what))?;
    let least = decode::numbers(boxes);
    match (&boxes.scores, numbers) {
        (Some(_), Some(numbers)) if numbers != 4 => {
            let what = format!("it is {}, with {numbers} numbers for each box instead of 4", shape::words(shape_of(tensors[0])));
            Err(wrong(&boxes.tensor, tensors[0], what))
        }
        (None, Some(numbers)) if numbers <= least => {
            let is = shape::words(shape_of(tensors[0]));
            let what = format!(
                "it is {is}, with {numbers} numbers for each box, which leaves none for scores: name their tensor, as scores = \"…\""
            );
            Err(wrong(&boxes.tensor, tensors[0], what))
        }
        (None, numbers) => {
            count_labels(labels, numbers.map(|numbers| numbers - least)).map_err(|what| wrong(&boxes.tensor, tensors[0], what))
        }
        (Some(name), _) => {
            let of = shape::scores(shape_of(tensors[1]), boxes.order, candidates).and_then(|[count, classes]| {
                if let (Some(count), Some(candidates)) = (count, candidates)
                    && count != candidates
                {
                    return Err(format!("it has scores for {count} boxes, and there are {candidates}"));
                }
                count_labels(labels, classes)
            });
            of.map_err(|what| wrong(name, tensors[1], what))
        }
    }
}

fn count_labels(labels: usize, classes: Side) -> Result<(), String> {
    match classes {
        Some(classes) if labels > 0 && labels != classes => {
            Err(format!("it has {classes} classes, and {labels} labels are given: one for each"))
        }
        _ => Ok(()),
    }
}

/// Returns the output of this name, or the only one if no name is given.
fn taken<'a>(name: &TensorName, graph: &'a Graph, at: At<'_>) -> Result<&'a Value, CustomEffectError> {
    let value = match (&name.name, &graph.outputs[..]) {
        (Some(name), outputs) => find(outputs, name),
        (None, [only]) => Some(only),
        (None, outputs) => {
            return Err(at(
                &name.place,
                &outputs[0].name,
                format!("it is not the only one; {}: name one, as tensor = \"…\"", names(outputs, "it gives")),
            ));
        }
    };
    let wanted = name.name.as_deref().unwrap_or_default();
    let value = value.ok_or_else(|| at(&name.place, wanted, format!("there is none; {}", names(&graph.outputs, "it gives"))))?;
    check_element(value).map_err(|what| at(&name.place, &value.name, what))?;
    if value.shape.is_none() {
        let what = "the file does not say its shape: add it with onnx.shape_inference.infer_shapes, or export it with fixed sizes";
        return Err(at(&name.place, &value.name, what.into()));
    }
    Ok(value)
}

fn check_element(value: &Value) -> Result<(), String> {
    match value.element {
        1 => Ok(()),
        other => Err(format!("it is {}, where float32 is wanted: put a Cast at that end of the model", element_name(other))),
    }
}

fn shape_of(value: &Value) -> &[Side] {
    value.shape.as_deref().unwrap_or_default()
}

fn find<'a>(values: &'a [Value], name: &str) -> Option<&'a Value> {
    values.iter().find(|value| value.name == name)
}

fn names(values: &[Value], verb: &str) -> String {
    let names: Vec<_> =
        values.iter().map(|value| format!("'{}' {}", value.name, value.shape.as_deref().map_or(String::new(), shape::words))).collect();
    format!("{verb} {}", names.join(", "))
}

/// Converts an output to a tensor specification. Each unknown dimension gets a unique name, so that
/// none is bound to the size of another.
fn output_tensor(value: &Value, index: usize) -> TensorSpec {
    let open = |axis: usize| Extent::Free(format!("side {axis} of output {index}").into());
    let shape = shape_of(value).iter().enumerate().map(|(axis, side)| side.map_or_else(|| open(axis), Extent::Fixed)).collect();
    tensor(&value.name, shape)
}

fn tensor(name: &str, shape: Vec<Extent>) -> TensorSpec {
    TensorSpec { name: name.to_string().into(), shape: shape.into() }
}
