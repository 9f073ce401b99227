// Command controlplane is a Kubernetes control plane in one binary, for Tenantry's tests and demo: etcd, kube-apiserver,
// the necessary controllers of kube-controller-manager, and kubectl.
//
// The first argument, or the name by which the binary is run, selects the part:
//
//	controlplane etcd --data-dir DIR --client-url URL --peer-url URL [--unsafe-no-fsync]
//	controlplane kube-apiserver FLAGS…
//	controlplane kube-controller-manager FLAGS…
//	controlplane kubectl ARGS…
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	part := filepath.Base(os.Args[0])
	if _, known := commands[part]; !known {
		if len(os.Args) < 2 {
			usage()
		}
		// Each part parses os.Args itself, and its name must be the first of them.
		os.Args = os.Args[1:]
		part = os.Args[0]
	}
	run, known := commands[part]
	if !known {
		usage()
	}
	run()
}

var commands = map[string]func(){
	"etcd":                    runEtcd,
	"kube-apiserver":          func() { os.Exit(cli.Run(apiserver.NewAPIServerCommand())) },
	"kube-controller-manager": runControllers,
	"kubectl":                 func() { runKubectl(kubectl.NewDefaultKubectlCommand()) },
}

// runKubectl prints errors as kubectl itself does, and exits with code 1.
func runKubectl(command *cobra.Command) {
	if err := cli.RunNoErrOutput(command); err != nil {
		kubectlutil.CheckErr(err)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: controlplane etcd|kube-apiserver|kube-controller-manager|kubectl [arguments]")
	os.Exit(2)
}
