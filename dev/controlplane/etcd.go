package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd serves a single-member etcd until SIGTERM or SIGINT.
func runEtcd() {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	dataDir := flags.String("data-dir", "", "the directory of the data")
	clientURL := flags.String("client-url", "", "address for kube-apiserver, such as http://127.0.0.1:2379")
	peerURL := flags.String("peer-url", "", "address for peers; etcd listens on it, also without peers")
	noFsync := flags.Bool("unsafe-no-fsync", false, "do not fsync: faster, and a crash of the machine loses data")
	_ = flags.Parse(os.Args[1:])

	config := embed.NewConfig()
	config.Dir = *dataDir
	config.LogLevel = "warn"
	config.UnsafeNoFsync = *noFsync
	// The library's default is zero, at which every request is logged as slow.
	config.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration
	config.AutoCompactionMode = "periodic"
	config.AutoCompactionRetention = "10m"
	client, peer := mustURL(*clientURL), mustURL(*peerURL)
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	server, err := embed.StartEtcd(config)
	if err != nil {
		fatal(err)
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
	case err := <-server.Err():
		fatal(err)
	}
}

func mustURL(text string) url.URL {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" {
		fatal(fmt.Errorf("etcd: %q is not a URL with a host and a port", text))
	}
	return *parsed
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
