//! Writes the values that JSON represents badly in a readable form. `list<u8>` is an array of numbers in
//! serde; here it is `{"text": …}`, or `{"hex": …}` when it is not UTF-8. A float that `serde_json` reads
//! back may differ in its last bit; as text it does not. SQL values are written without their case, which
//! JSON already shows. Only members that the contract names are changed, so the conversion back is exact.

use serde_json::{Value, json};

/// The members of the contract's types and of host calls that hold `list<u8>`: bodies, the `bytes` case of
/// SQL values and Redis nodes, and random bytes.
const BYTES: [&str; 3] = ["body", "Bytes", "random"];
/// The member that holds `f64`: the `float` case of SQL values.
const FLOAT: &str = "Float";
/// Lists of SQL values: parameters, the row of a group commit, the cells of an answer.
const SQL_VALUES: [&str; 3] = ["params", "row", "cells"];

pub(super) fn fold(value: &mut Value) {
    walk(value, &|name, member| {
        if SQL_VALUES.contains(&name) {
            member.as_array_mut().into_iter().flatten().for_each(fold_sql_value);
            return;
        }
        if name == FLOAT {
            if let Some(float) = member.as_f64() {
                *member = json!(float.to_string());
            }
            return;
        }
        let Value::Array(elements) = &*member else { return };
        let Some(raw) = elements.iter().map(byte).collect::<Option<Vec<u8>>>() else { return };
        *member = match String::from_utf8(raw) {
            Ok(text) => json!({ "text": text }),
            Err(error) => json!({ "hex": hex(error.as_bytes()) }),
        };
    });
}

pub(super) fn unfold(value: &mut Value) {
    walk(value, &|name, member| {
        if SQL_VALUES.contains(&name) {
            member.as_array_mut().into_iter().flatten().for_each(unfold_sql_value);
            return;
        }
        if name == FLOAT {
            if let Some(float) = member.as_str().and_then(|text| text.parse::<f64>().ok()) {
                *member = json!(float);
            }
            return;
        }
        let raw = match (member.get("text"), member.get("hex")) {
            (Some(Value::String(text)), None) => Some(text.clone().into_bytes()),
            (None, Some(Value::String(hex))) => unhex(hex),
            _ => None,
        };
        if let Some(raw) = raw {
            *member = json!(raw);
        }
    });
}

/// `{"Text": "x"}` becomes `"x"`, and `"Null"` becomes `null`. Cases that JSON cannot show keep their name.
fn fold_sql_value(value: &mut Value) {
    if value == "Null" {
        *value = Value::Null;
        return;
    }
    let plain = ["Text", "Integer", "Boolean"].iter().find_map(|case| value.get_mut(case).map(Value::take));
    match plain {
        Some(plain) => *value = plain,
        None => fold(value),
    }
}

/// A pair of an HTTP request's `params` is a list, and not an SQL value.
fn unfold_sql_value(value: &mut Value) {
    let case = match value {
        Value::Null => {
            *value = json!("Null");
            return;
        }
        Value::String(_) => "Text",
        Value::Number(_) => "Integer",
        Value::Bool(_) => "Boolean",
        Value::Array(_) => return,
        Value::Object(_) => return unfold(value),
    };
    *value = json!({ case: value.take() });
}

/// Calls `change` for the members with a special name, and walks into the others.
fn walk(value: &mut Value, change: &impl Fn(&str, &mut Value)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.as_str();
                if name == FLOAT || BYTES.contains(&name) || SQL_VALUES.contains(&name) {
                    change(name, member);
                } else {
                    walk(member, change);
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| walk(element, change)),
        _ => {}
    }
}

fn byte(element: &Value) -> Option<u8> {
    element.as_u64()?.try_into().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{value_from, value_of};
    use switchboard_contract::http::Response;
    use switchboard_contract::postgres::{Rows, Value as Cell};

    #[test]
    fn text_reads_as_text_and_comes_back_as_bytes() {
        let response = Response { status: 200, headers: vec![], body: b"{\"ok\":true}".to_vec() };
        let value = value_of(&response);
        assert_eq!(value["body"], json!({ "text": "{\"ok\":true}" }));
        assert_eq!(value_from::<Response>(value).unwrap(), response);
    }

    #[test]
    fn other_bytes_read_as_hex() {
        let cells = vec![Cell::Bytes(vec![0xff, 0x00]), Cell::Bytes(vec![]), Cell::Integers(vec![1, 2])];
        let value = value_of(&cells);
        assert_eq!(value[0], json!({ "Bytes": { "hex": "ff00" } }));
        assert_eq!(value_from::<Vec<Cell>>(value).unwrap(), cells);
    }

    #[test]
    fn sql_values_stand_without_their_case_where_json_has_the_word() {
        let rows = Rows {
            columns: vec!["a".into()],
            cells: vec![
                Cell::Null,
                Cell::Text("Null".into()),
                Cell::Integer(-7),
                Cell::Boolean(true),
                Cell::Float(1.5),
                Cell::Bytes(vec![0xff]),
                Cell::Texts(vec!["x".into()]),
                Cell::Integers(vec![1]),
            ],
            affected: 1,
        };
        let value = value_of(&rows);
        assert_eq!(
            value["cells"],
            json!([null, "Null", -7, true, { "Float": "1.5" }, { "Bytes": { "hex": "ff" } }, { "Texts": ["x"] },
                   { "Integers": [1] }])
        );
        assert_eq!(value_from::<Rows>(value).unwrap(), rows);
    }

    #[test]
    fn the_parameters_of_a_path_are_no_sql_values() {
        let params = json!({ "params": [["id", "Null"], ["x", "y"]] });
        let mut value = params.clone();
        fold(&mut value);
        unfold(&mut value);
        assert_eq!(value, params);
    }

    #[test]
    fn floats_come_back_to_the_last_bit() {
        for float in [-1.9814894149361083e-150, 0.1 + 0.2, f64::MAX, -0.0, 7.0] {
            let text = value_of(&Cell::Float(float)).to_string();
            let cell = value_from::<Cell>(serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(cell, Cell::Float(float), "{text}");
        }
    }
}
