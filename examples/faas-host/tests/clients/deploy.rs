//! `faas-host deploy`: a template's functions run, and a second time changes nothing.

use std::process::Command;

use crate::support::{Served, python, ready};

#[test]
fn functions_of_a_template_are_deployed() {
    if !ready("deploy of a template") {
        return;
    }
    let served = Served::start(&[]);
    let source = served.folder.path().join("source");
    std::fs::create_dir_all(source.join("package")).unwrap();
    let write = |answer: &str| {
        let code = format!(
            "import os\nfrom package.stage import variable\ndef handler(event, context):\n\
             \x20   return [{answer}, os.environ[variable], context.function_version]\n"
        );
        std::fs::write(source.join("app.py"), code).unwrap();
    };
    std::fs::write(source.join("package/stage.py"), "variable = 'STAGE'\n").unwrap();
    let template = format!(
        "Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: {{Type: String, Default: test}}
Globals:
  Function:
    Runtime: {}
Resources:
  Orders:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: !Sub 'orders-${{Stage}}'
      CodeUri: source/
      Handler: app.handler
      AutoPublishAlias: live
      Environment: {{Variables: {{STAGE: !Ref Stage}}}}
  Table:
    Type: AWS::Serverless::SimpleTable
",
        python()
    );
    std::fs::write(served.folder.path().join("template.yaml"), template).unwrap();
    let deploy = || {
        let output = Command::new(env!("CARGO_BIN_EXE_faas-host"))
            .args(["deploy", "template.yaml", "--parameter", "Stage=live", "--to"])
            .arg(served.endpoint.trim_start_matches("http://"))
            .current_dir(served.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let invoke = || served.invoke("orders-live", "{}", &["--qualifier", "live"]).1;

    write("1");
    let told = deploy();
    assert!(told.contains("Table: AWS::Serverless::SimpleTable"), "{told}");
    assert_eq!(invoke(), serde_json::json!([1, "live", "1"]));
    deploy();
    assert_eq!(invoke(), serde_json::json!([1, "live", "1"]));
    write("2");
    deploy();
    assert_eq!(invoke(), serde_json::json!([2, "live", "2"]));
}
