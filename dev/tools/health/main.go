// Evaluates objects as deployment tools do: kstatus is what Flux and Helm 4 wait by, and Argo CD runs a Lua script for each
// kind. Reads {"objects": {NAME: OBJECT}, "scripts": {KIND: LUA}} and writes {NAME: RESULT}.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type input struct {
	Objects map[string]json.RawMessage `json:"objects"`
	Scripts map[string]string          `json:"scripts"`
}

type result struct {
	Kstatus        string `json:"kstatus"`
	KstatusMessage string `json:"kstatusMessage"`
	Argo           string `json:"argo"`
	ArgoMessage    string `json:"argoMessage"`
}

func main() {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		log.Fatal(err)
	}
	results := map[string]result{}
	for name, raw := range in.Objects {
		found, err := evaluate(raw, in.Scripts)
		if err != nil {
			log.Fatalf("%s: %v", name, err)
		}
		results[name] = found
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}

func evaluate(raw []byte, scripts map[string]string) (result, error) {
	object := &unstructured.Unstructured{}
	// As a client decodes it: integers are int64.
	if err := object.UnmarshalJSON(raw); err != nil {
		return result{}, err
	}
	computed, err := status.Compute(object)
	if err != nil {
		return result{}, err
	}
	script, ok := scripts[object.GetKind()]
	if !ok {
		return result{}, fmt.Errorf("no script for %s", object.GetKind())
	}
	health, message, err := run(script, object.Object)
	if err != nil {
		return result{}, err
	}
	return result{string(computed.Status), computed.Message, health, message}, nil
}

// run has no libraries but those that Argo CD opens: base, table and string.
func run(script string, object map[string]any) (health, message string, err error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable, lua.StringLibName: lua.OpenString,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	found, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("the script returns no table")
	}
	health = lua.LVAsString(found.RawGetString("status"))
	switch health {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return health, lua.LVAsString(found.RawGetString("message")), nil
	}
	return "", "", fmt.Errorf("no health of Argo CD: %q", health)
}

func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case string:
		return lua.LString(from)
	case bool:
		return lua.LBool(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	case []any:
		table := state.NewTable()
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range from {
			table.RawSetString(key, value(state, item))
		}
		return table
	}
	return lua.LNil
}
