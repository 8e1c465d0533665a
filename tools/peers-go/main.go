// A client made of go-spiffe and SPIRE's API SDK, the reference implementations, for the interop suites: it asks our
// Workload API and our server what real clients ask, and prints a JSON line per answer. Built by tools/peers.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

type object = map[string]any

func say(value any) {
	line, err := json.Marshal(value)
	check(err)
	fmt.Println(string(line))
}

func check(err error) {
	if err != nil {
		say(object{"error": err.Error()})
		os.Exit(1)
	}
}

var (
	socket   = flag.String("socket", "", "Workload API (default: SPIFFE_ENDPOINT_SOCKET), or the server's admin socket")
	timeout  = flag.Duration("timeout", 20*time.Second, "give up after")
	audience = flag.String("audience", "", "of a JWT-SVID")
	token    = flag.String("token", "", "a JWT-SVID to validate")
	id       = flag.String("id", "", "the SPIFFE ID that the other side must have")
	url      = flag.String("url", "", "what to get")
	listen   = flag.String("listen", "127.0.0.1:0", "where to serve")
	updates  = flag.Int("updates", 2, "how many updates to wait for")
)

func describe(svid *x509svid.SVID) object {
	leaf := svid.Certificates[0]
	return object{
		"spiffeId": svid.ID.String(), "hint": svid.Hint, "chain": len(svid.Certificates),
		"serial": leaf.SerialNumber.Text(16), "notAfter": leaf.NotAfter.UTC().Format(time.RFC3339),
	}
}

func options() []workloadapi.ClientOption {
	if *socket == "" {
		return nil
	}
	return []workloadapi.ClientOption{workloadapi.WithAddr(*socket)}
}

func source(ctx context.Context) *workloadapi.X509Source {
	s, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(options()...))
	check(err)
	return s
}

func authorizer() tlsconfig.Authorizer {
	if *id == "" {
		return tlsconfig.AuthorizeAny()
	}
	wanted, err := spiffeid.FromString(*id)
	check(err)
	return tlsconfig.AuthorizeID(wanted)
}

type watcher struct {
	left int
	done context.CancelFunc
}

func (w *watcher) OnX509ContextUpdate(c *workloadapi.X509Context) {
	say(describe(c.DefaultSVID()))
	if w.left--; w.left <= 0 {
		w.done()
	}
}

func (w *watcher) OnX509ContextWatchError(err error) { say(object{"watchError": err.Error()}) }

func x509(ctx context.Context) {
	c, err := workloadapi.FetchX509Context(ctx, options()...)
	check(err)
	svids, bundles := []object{}, []object{}
	for _, svid := range c.SVIDs {
		svids = append(svids, describe(svid))
	}
	for _, bundle := range c.Bundles.Bundles() {
		bundles = append(bundles, object{
			"trustDomain": bundle.TrustDomain().Name(), "x509Authorities": len(bundle.X509Authorities()),
		})
	}
	say(object{"svids": svids, "bundles": bundles})
}

func jwt(ctx context.Context) {
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: *audience}, options()...)
	check(err)
	say(object{"spiffeId": svid.ID.String(), "token": svid.Marshal(), "expiry": svid.Expiry.UTC().Format(time.RFC3339)})
}

// validate checks a token twice: by the Workload API, and here against the bundles the Workload API gives.
func validate(ctx context.Context) {
	remote, err := workloadapi.ValidateJWTSVID(ctx, *token, *audience, options()...)
	check(err)
	bundles, err := workloadapi.FetchJWTBundles(ctx, options()...)
	check(err)
	local, err := jwtsvid.ParseAndValidate(*token, bundles, []string{*audience})
	check(err)
	say(object{"spiffeId": remote.ID.String(), "local": local.ID.String()})
}

func get(ctx context.Context) {
	s := source(ctx)
	defer s.Close()
	client := http.Client{Transport: &http.Transport{TLSClientConfig: tlsconfig.MTLSClientConfig(s, s, authorizer())}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, *url, nil)
	check(err)
	response, err := client.Do(request)
	check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	check(err)
	say(object{"status": response.StatusCode, "body": string(body)})
}

func serve(ctx context.Context) {
	s := source(ctx)
	defer s.Close()
	listener, err := net.Listen("tcp", *listen)
	check(err)
	say(object{"listening": listener.Addr().String()})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := x509svid.IDFromCert(r.TLS.PeerCertificates[0])
		check(err)
		fmt.Fprintf(w, "%s %s %s\n", peer, r.Method, r.URL.Path)
	})
	server := http.Server{Handler: handler}
	tlsListener := tls.NewListener(listener, tlsconfig.MTLSServerConfig(s, s, authorizer()))
	check(server.Serve(tlsListener))
}

func localConn() *grpc.ClientConn {
	conn, err := grpc.NewClient(*socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	return conn
}

// admin asks the server through SPIRE's own API contracts.
func admin(ctx context.Context) {
	conn := localConn()
	defer conn.Close()
	show := func(what string, message proto.Message, err error) {
		check(err)
		text, err := protojson.Marshal(message)
		check(err)
		say(object{"call": what, "answer": json.RawMessage(text)})
	}
	entries, err := entryv1.NewEntryClient(conn).ListEntries(ctx, &entryv1.ListEntriesRequest{})
	show("ListEntries", entries, err)
	agents, err := agentv1.NewAgentClient(conn).ListAgents(ctx, &agentv1.ListAgentsRequest{})
	show("ListAgents", agents, err)
	bundle, err := bundlev1.NewBundleClient(conn).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	show("GetBundle", bundle, err)
}

func main() {
	commands := map[string]func(context.Context){
		"x509": x509, "jwt": jwt, "validate": validate, "get": get, "serve": serve, "admin": admin, "node": asNode,
		"fetch-bundle": fetchBundle,
		"watch": func(ctx context.Context) {
			ctx, done := context.WithCancel(ctx)
			w := &watcher{left: *updates, done: done}
			if err := workloadapi.WatchX509Context(ctx, w, options()...); w.left > 0 {
				check(err)
			}
		},
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		check(fmt.Errorf("one of x509, jwt, validate, watch, get, serve, admin, node, fetch-bundle"))
	}
	check(flag.CommandLine.Parse(os.Args[2:]))
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	commands[os.Args[1]](ctx)
}
