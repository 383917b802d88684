//! Reader of an ONNX file's inputs and outputs that needs no runtime: gateways that run no models
//! need them too, and errors can name a tensor before anything is run.
//!
//! It implements only the necessary part of protocol buffers
//! ([ONNX's schema](https://github.com/onnx/onnx/blob/main/onnx/onnx.proto)).

/// Maximum nesting of graphs within graphs (of loops and branches).
const DEPTH: usize = 8;

/// Inputs and outputs of an ONNX file, without inputs that have an initializer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Value>,
    pub(super) outputs: Vec<Value>,
}

/// An input or output tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Value {
    pub(super) name: String,
    /// ONNX element type: 1 is float32.
    pub(super) element: u64,
    /// Dimensions of the tensor; `None` if the file does not declare them. A dimension that the
    /// file leaves open is `None` as well.
    pub(super) shape: Option<Vec<Option<usize>>>,
}

/// Returns the name of an ONNX element type.
pub(super) fn element_name(element: u64) -> &'static str {
    match element {
        1 => "float32",
        2 => "uint8",
        3 => "int8",
        6 => "int32",
        7 => "int64",
        9 => "bool",
        10 => "float16",
        11 => "double",
        16 => "bfloat16",
        _ => "of a type other than float32",
    }
}

impl Graph {
    /// Reads an ONNX file.
    ///
    /// # Errors
    /// When it is not an ONNX file, or keeps weights in other files. The message continues a
    /// sentence that begins with the file's name.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let damaged = || "it is no ONNX file, or one that was cut off: copy it again".to_string();
        let mut graph = None;
        for field in Fields(bytes) {
            match field.ok_or_else(damaged)? {
                (7, Field::Bytes(bytes)) => graph = Some(bytes),
                (25, Field::Bytes(function)) => {
                    look_through(function, 7, DEPTH).ok_or_else(damaged)?.then_some(()).ok_or_else(elsewhere)?
                }
                _ => {}
            }
        }
        let graph = graph.ok_or_else(damaged)?;
        if !look_through(graph, 1, DEPTH).ok_or_else(damaged)? {
            return Err(elsewhere());
        }
        let read = Self::of(graph).ok_or_else(damaged)?;
        if read.outputs.is_empty() {
            return Err(damaged());
        }
        Ok(read)
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (mut graph, mut held) = (Self::default(), Vec::new());
        for field in Fields(bytes) {
            match field? {
                (5, Field::Bytes(tensor)) => held.push(text_of(tensor, 8)?),
                (11, Field::Bytes(value)) => graph.inputs.push(Value::of(value)?),
                (12, Field::Bytes(value)) => graph.outputs.push(Value::of(value)?),
                _ => {}
            }
        }
        graph.inputs.retain(|input| !held.contains(&input.name));
        Some(graph)
    }
}

impl Value {
    /// Parses a ValueInfoProto: name 1, type 2; its tensor_type 1: elem_type 1, shape 2; its dim 1:
    /// dim_value 1.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut value = Self { name: text_of(bytes, 1)?, ..Self::default() };
        let Some(tensor) = inner(bytes, 2)?.map(|kind| inner(kind, 1)).unwrap_or(Some(None))? else { return Some(value) };
        for field in Fields(tensor) {
            match field? {
                (1, Field::Number(element)) => value.element = element,
                (2, Field::Bytes(shape)) => {
                    let mut sides = Vec::new();
                    for dimension in Fields(shape) {
                        let (1, Field::Bytes(dimension)) = dimension? else { continue };
                        let size = Fields(dimension).flatten().find_map(|field| match field {
                            (1, Field::Number(size)) => usize::try_from(size).ok().filter(|size| (1..1 << 31).contains(size)),
                            _ => None,
                        });
                        sides.push(size);
                    }
                    value.shape = Some(sides);
                }
                _ => {}
            }
        }
        Some(value)
    }
}

fn elsewhere() -> String {
    "it keeps weights in other files: save it as one file (onnx.save_model with save_as_external_data=False)".into()
}

/// Returns whether all tensors of a graph, and of graphs nested in it, contain their data; `None`
/// if the graph is damaged. `nodes` is the number of the field with the nodes.
fn look_through(graph: &[u8], nodes: u32, depth: usize) -> Option<bool> {
    let deeper = depth.checked_sub(1)?;
    for field in Fields(graph) {
        let whole = match field? {
            (number, Field::Bytes(node)) if number == nodes => node_is_whole(node, deeper)?,
            (5, Field::Bytes(tensor)) if nodes == 1 => is_whole(tensor)?,
            (15, Field::Bytes(sparse)) if nodes == 1 => [1, 2]
                .iter()
                .try_fold(true, |whole, field| inner(sparse, *field)?.map_or(Some(true), is_whole).map(|this| whole && this))?,
            _ => true,
        };
        if !whole {
            return Some(false);
        }
    }
    Some(true)
}

/// Checks a NodeProto: attribute 5; AttributeProto: t 5, g 6, tensors 10, graphs 11.
fn node_is_whole(node: &[u8], depth: usize) -> Option<bool> {
    for field in Fields(node) {
        let (5, Field::Bytes(attribute)) = field? else { continue };
        for field in Fields(attribute) {
            let whole = match field? {
                (5 | 10, Field::Bytes(tensor)) => is_whole(tensor)?,
                (6 | 11, Field::Bytes(graph)) => look_through(graph, 1, depth)?,
                _ => true,
            };
            if !whole {
                return Some(false);
            }
        }
    }
    Some(true)
}

/// Checks a TensorProto: external_data 13, data_location 14.
fn is_whole(tensor: &[u8]) -> Option<bool> {
    for field in Fields(tensor) {
        match field? {
            (13, _) | (14, Field::Number(1)) => return Some(false),
            _ => {}
        }
    }
    Some(true)
}

/// Returns the text in a field; empty if the field is missing.
fn text_of(bytes: &[u8], number: u32) -> Option<String> {
    let text = inner(bytes, number)?.unwrap_or_default();
    String::from_utf8(text.to_vec()).ok()
}

/// Returns the last field of this number, if there is one; the outer `None` means that the message
/// is damaged.
fn inner(bytes: &[u8], number: u32) -> Option<Option<&[u8]>> {
    let mut found = None;
    for field in Fields(bytes) {
        if let (field, Field::Bytes(bytes)) = field?
            && field == number
        {
            found = Some(bytes);
        }
    }
    Some(found)
}

/// Iterator over the fields of a message, each with its number. It yields `None` where the message
/// is damaged, and then ends.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<(u32, Field<'a>)> {
        let key = self.number()?;
        let field = match key & 7 {
            0 => Field::Number(self.number()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok().filter(|number| *number > 0)?, field))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELFIE: &[u8] = include_bytes!("../../../../models/selfie_landscape_144x256.onnx");
    const STYLE: &[u8] = include_bytes!("../../../../models/style26.onnx");

    #[test]
    fn inputs_and_outputs_are_read_with_their_shapes() {
        let graph = Graph::read(SELFIE).unwrap();
        let shape = |channels| Some(vec![Some(1), Some(channels), Some(144), Some(256)]);
        assert_eq!(graph.inputs, [Value { name: "input".into(), element: 1, shape: shape(3) }]);
        assert_eq!(graph.outputs, [Value { name: "mask".into(), element: 1, shape: shape(1) }]);
        let graph = Graph::read(STYLE).unwrap();
        assert_eq!(graph.inputs.len(), 2, "weights of the model are no inputs");
        assert_eq!(graph.inputs[0].shape, Some(vec![Some(1), Some(3), None, None]));
    }

    #[test]
    fn what_is_no_onnx_is_refused_and_damage_does_no_harm() {
        for bytes in [&b""[..], b"not a model", &[0xff; 100], &SELFIE[..SELFIE.len() / 2]] {
            assert!(Graph::read(bytes).unwrap_err().contains("no ONNX file"));
        }
        let mut seed = 7_u32;
        let mut refused = 0;
        for _ in 0..300 {
            let mut bytes = SELFIE[SELFIE.len() - 4000..].to_vec();
            for _ in 0..20 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bytes[seed as usize % 4000] = (seed >> 24) as u8;
            }
            refused += usize::from(Graph::read(&bytes).is_err());
        }
        assert!(refused > 200, "{refused}");
    }

    #[test]
    fn weights_in_other_files_are_refused() {
        // A graph (7) whose initializer (5) declares its data as external (14 = 1).
        let model = [7 << 3 | 2, 4, 5 << 3 | 2, 2, 14 << 3, 1];
        assert!(Graph::read(&model).unwrap_err().contains("weights in other files"));
        // An attribute (5) of a node (1) has a tensor (5) that declares its data as external.
        let model = [7 << 3 | 2, 8, 1 << 3 | 2, 6, 5 << 3 | 2, 4, 5 << 3 | 2, 2, 14 << 3, 1];
        assert!(Graph::read(&model).unwrap_err().contains("weights in other files"));
    }

    #[test]
    fn graphs_in_graphs_without_end_are_refused() {
        let mut graph = vec![12 << 3 | 2, 0];
        for _ in 0..20 {
            for tag in [6, 5, 1] {
                graph = [vec![tag << 3 | 2, graph.len() as u8], graph].concat();
            }
        }
        let model = [vec![7 << 3 | 2, graph.len() as u8], graph].concat();
        assert!(Graph::read(&model).is_err());
    }
}
