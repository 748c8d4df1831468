//! Layers: their files are under `/opt`, later ones over earlier ones, and stay when the layer is
//! deleted.

use crate::support::{Served, archive, python, ready};

#[test]
fn files_of_layers_are_under_opt() {
    if !ready("layers") {
        return;
    }
    let served = Served::start(&[]);
    let publish = |name: &str, files: &[(&str, &[u8])]| {
        std::fs::write(served.folder.path().join("layer.zip"), archive(files)).unwrap();
        let arguments = ["publish-layer-version", "--layer-name", name, "--zip-file"];
        let output = served.aws(&[&arguments[..], &["fileb://layer.zip"]].concat());
        assert!(output.success, "{output:?}");
        output.json()["LayerVersionArn"].as_str().unwrap().to_owned()
    };
    let shared: &[u8] = b"name = 'first'\n";
    let first = publish("first", &[("python/shared.py", shared), ("data/a", b"1")]);
    let second = publish("second", &[("data/a", b"2"), ("data/b", b"2")]);
    let code = b"import shared\n\
        def handler(event, context):\n\
        \x20   return [shared.name] + [open('/opt/data/' + name).read() for name in ('a', 'b')]\n";
    let layers = ["--layers", &first, &second];
    served.create("f", &python(), "app.handler", &[("app.py", code)], &layers);
    assert_eq!(served.invoke("f", "{}", &[]).1, serde_json::json!(["first", "2", "2"]));

    for (name, arn) in [("first", &first), ("second", &second)] {
        let version = arn.rsplit(':').next().unwrap();
        let arguments = ["delete-layer-version", "--layer-name", name, "--version-number", version];
        assert!(served.aws(&arguments).success);
    }
    let memory = ["update-function-configuration", "--function-name", "f", "--memory-size", "256"];
    assert!(served.aws(&memory).success);
    // The next start must unpack the folder again from the stored archives.
    let served = Served::start_in(served.stop(), &[]);
    assert_eq!(served.invoke("f", "{}", &[]).1, serde_json::json!(["first", "2", "2"]));
    let again = ["update-function-configuration", "--function-name", "f", "--layers", &first];
    let output = served.aws(&again);
    assert!(output.stderr.contains("does not exist"), "{output:?}");
}
