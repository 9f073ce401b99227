package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsscheme "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/scheme"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/resourcequota"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/ttlafterfinished"
	"k8s.io/kubernetes/pkg/controller/validatingadmissionpolicystatus"
	"k8s.io/kubernetes/pkg/generated/openapi"
	"k8s.io/kubernetes/pkg/quota/v1/install"
	tokens "k8s.io/kubernetes/pkg/serviceaccount"
)

// The intervals of kube-controller-manager.
const (
	resyncPeriod = 12 * time.Hour
	syncPeriod   = 30 * time.Second
)

// runControllers runs those controllers of kube-controller-manager that the operator, its chart and the deletion of
// their objects need, until SIGTERM or SIGINT. The whole of kube-controller-manager would also compile the scheduler,
// the volume plugins and the kubelet's parts.
func runControllers() {
	flags := flag.NewFlagSet("kube-controller-manager", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "the cluster administrator's kubeconfig")
	rootCA := flags.String("root-ca-file", "", "the certificate that clients in the cluster trust")
	key := flags.String("service-account-private-key-file", "", "the key that signs tokens in Secrets")
	_ = flags.Parse(os.Args[1:])

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fatal(err)
	}
	// Each test creates and deletes a namespace: the default of 20 requests per second would delay them.
	config.QPS, config.Burst = 500, 1000
	ca, err := os.ReadFile(*rootCA)
	if err != nil {
		fatal(err)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := startControllers(ctx, config, ca, *key); err != nil {
		fatal(err)
	}
	<-ctx.Done()
}

func startControllers(ctx context.Context, config *rest.Config, ca []byte, keyFile string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := waitReady(ctx, client); err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	go wait.Until(mapper.Reset, syncPeriod, ctx.Done())

	typed := informers.NewSharedInformerFactory(client, resyncPeriod)
	all := informerfactory.NewInformerFactory(typed, metadatainformer.NewSharedInformerFactory(metadataClient, resyncPeriod))
	started := make(chan struct{})
	core, apps, batch := typed.Core().V1(), typed.Apps().V1(), typed.Batch().V1()
	logger := klog.FromContext(ctx)
	var failures []error
	failed := func(err error) bool {
		failures = append(failures, err)
		return err != nil
	}
	resources := client.Discovery().ServerPreferredNamespacedResources
	var runs []func()
	run := func(loop func()) { runs = append(runs, loop) }

	namespaces := namespace.NewNamespaceController(
		ctx, client, metadataClient, resources, core.Namespaces(), 5*time.Minute, corev1.FinalizerKubernetes)
	run(func() { namespaces.Run(ctx, 10) })

	if accounts, err := serviceaccount.NewServiceAccountsController(
		logger, core.ServiceAccounts(), core.Namespaces(), client,
		serviceaccount.DefaultServiceAccountsControllerOptions()); !failed(err) {
		run(func() { accounts.Run(ctx, 1) })
	}

	if publisher, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), client, ca); !failed(err) {
		run(func() { publisher.Run(ctx, 1) })
	}

	if key, err := keyutil.PrivateKeyFromFile(keyFile); !failed(err) {
		generator, err := tokens.JWTTokenGenerator(tokens.LegacyIssuer, key)
		if !failed(err) {
			options := serviceaccount.TokensControllerOptions{TokenGenerator: generator, RootCA: ca}
			signer, err := serviceaccount.NewTokensController(
				logger, core.ServiceAccounts(), core.Secrets(), client, options)
			if !failed(err) {
				run(func() { signer.Run(ctx, 5) })
			}
		}
	}

	graph := garbagecollector.NewDependencyGraphBuilder(
		ctx, metadataClient, mapper, garbagecollector.DefaultIgnoredResources(), all, started)
	if collector, err := garbagecollector.NewComposedGarbageCollector(
		ctx, client, metadataClient, mapper, graph); !failed(err) {
		run(func() { collector.Run(ctx, 20, syncPeriod) })
		run(func() { collector.Sync(ctx, client.Discovery(), syncPeriod) })
	}

	roles := clusterroleaggregation.NewClusterRoleAggregation(typed.Rbac().V1().ClusterRoles(), client.RbacV1())
	run(func() { roles.Run(ctx, 5) })

	types := &validating.TypeChecker{
		SchemaResolver: resolver.NewDefinitionsSchemaResolver(
			openapi.GetOpenAPIDefinitions, scheme.Scheme, apiextensionsscheme.Scheme,
		).Combine(&resolver.ClientDiscoveryResolver{Discovery: client.Discovery()}),
		RestMapper: mapper,
	}
	if policies, err := validatingadmissionpolicystatus.NewController(
		typed.Admissionregistration().V1().ValidatingAdmissionPolicies(),
		client.AdmissionregistrationV1().ValidatingAdmissionPolicies(), types); !failed(err) {
		run(func() { policies.Run(ctx, 5) })
	}

	replicaSets := replicaset.NewReplicaSetController(
		ctx, apps.ReplicaSets(), core.Pods(), client, replicaset.BurstReplicas)
	run(func() { replicaSets.Run(ctx, 5) })
	if deployments, err := deployment.NewDeploymentController(
		ctx, apps.Deployments(), apps.ReplicaSets(), core.Pods(), client); !failed(err) {
		run(func() { deployments.Run(ctx, 5) })
	}

	if jobs, err := job.NewController(ctx, client, core.Pods(), batch.Jobs(), nil, nil); !failed(err) {
		run(func() { jobs.Run(ctx, 5) })
	}
	if cronJobs, err := cronjob.NewControllerV2(ctx, batch.Jobs(), batch.CronJobs(), client); !failed(err) {
		run(func() { cronJobs.Run(ctx, 5) })
	}
	finished := ttlafterfinished.New(ctx, batch.Jobs(), client)
	run(func() { finished.Run(ctx, 5) })

	if quota, err := install.NewQuotaConfigurationForControllers(
		generic.ListerFuncForResourceFunc(typed.ForResource), typed); !failed(err) {
		quotas, err := resourcequota.NewController(ctx, &resourcequota.ControllerOptions{
			QuotaClient:               client.CoreV1(),
			ResourceQuotaInformer:     core.ResourceQuotas(),
			ResyncPeriod:              controller.StaticResyncPeriodFunc(5 * time.Minute),
			InformerFactory:           all,
			ReplenishmentResyncPeriod: controller.StaticResyncPeriodFunc(resyncPeriod),
			DiscoveryFunc:             resources,
			IgnoredResourcesFunc:      quota.IgnoredResources,
			InformersStarted:          started,
			Registry:                  generic.NewRegistry(quota.Evaluators()),
			UpdateFilter:              install.DefaultUpdateFilter(),
		})
		if !failed(err) {
			run(func() { quotas.Run(ctx, 5) })
			run(func() { quotas.Sync(ctx, resources, syncPeriod) })
		}
	}

	if err := errors.Join(failures...); err != nil {
		return err
	}
	for _, loop := range runs {
		go loop()
	}
	all.Start(ctx.Done())
	close(started)
	return nil
}

// waitReady waits until the API server is healthy: it may start at the same time.
func waitReady(ctx context.Context, client *kubernetes.Clientset) error {
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 10*time.Second, true,
		func(ctx context.Context) (bool, error) {
			_, err := client.Discovery().RESTClient().Get().AbsPath("/healthz").DoRaw(ctx)
			return err == nil, nil
		})
}
