package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	pki "crypto/x509"
	"flag"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

var (
	serverAddress = flag.String("server", "", "the server's node API, host:port")
	bundlePath    = flag.String("bundle", "", "PEM of the trust bundle")
)

type node struct {
	domain spiffeid.TrustDomain
	roots  *x509bundle.Bundle
	svid   *x509svid.SVID
}

func newKey() (*ecdsa.PrivateKey, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	csr, err := pki.CreateCertificateRequest(rand.Reader, &pki.CertificateRequest{}, key)
	check(err)
	return key, csr
}

func makeSVID(answer *types.X509SVID, key crypto.Signer) *x509svid.SVID {
	var der []byte
	for _, one := range answer.CertChain {
		der = append(der, one...)
	}
	chain, err := pki.ParseCertificates(der)
	check(err)
	id, err := x509svid.IDFromCert(chain[0])
	check(err)
	return &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key}
}

// dial as an agent does: the server's certificate must be spiffe://<trust domain>/spire/server.
func (n *node) dial() *grpc.ClientConn {
	wanted, err := spiffeid.FromPath(n.domain, "/spire/server")
	check(err)
	var config *tls.Config
	if n.svid == nil {
		config = tlsconfig.TLSClientConfig(n.roots, tlsconfig.AuthorizeID(wanted))
	} else {
		config = tlsconfig.MTLSClientConfig(n.svid, n.roots, tlsconfig.AuthorizeID(wanted))
	}
	conn, err := grpc.NewClient(*serverAddress, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	check(err)
	return conn
}

func (n *node) attest(ctx context.Context) {
	conn := n.dial()
	defer conn.Close()
	key, csr := newKey()
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(ctx)
	check(err)
	check(stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{
		Params: &agentv1.AttestAgentRequest_Params{
			Data:   &types.AttestationData{Type: "join_token", Payload: []byte(*token)},
			Params: &agentv1.AgentX509SVIDParams{Csr: csr},
		},
	}}))
	answer, err := stream.Recv()
	check(err)
	result := answer.GetResult()
	n.svid = makeSVID(result.Svid, key)
	check(stream.CloseSend())
	_, _, err = x509svid.Verify(n.svid.Certificates, n.roots)
	check(err)
	say(object{"step": "attest", "reattestable": result.Reattestable, "svid": describe(n.svid)})
	bundle, err := bundlev1.NewBundleClient(conn).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	check(err)
	say(object{"step": "bundle", "trustDomain": bundle.TrustDomain, "x509": len(bundle.X509Authorities),
		"jwt": len(bundle.JwtAuthorities), "sequence": bundle.SequenceNumber})
}

// sync as SPIRE's agent does: revisions are always asked for, further ids only where there are many entries.
func (n *node) sync(ctx context.Context, conn *grpc.ClientConn) []*types.Entry {
	stream, err := entryv1.NewEntryClient(conn).SyncAuthorizedEntries(ctx)
	check(err)
	check(stream.Send(&entryv1.SyncAuthorizedEntriesRequest{OutputMask: &types.EntryMask{
		SpiffeId: true, ParentId: true, Selectors: true, FederatesWith: true, Admin: true, Downstream: true,
		RevisionNumber: true, StoreSvid: true, Hint: true, CreatedAt: true,
	}}))
	var entries []*types.Entry
	var wanted []string
	for {
		answer, err := stream.Recv()
		check(err)
		entries = append(entries, answer.Entries...)
		for _, revision := range answer.EntryRevisions {
			wanted = append(wanted, revision.Id)
		}
		if !answer.More {
			break
		}
	}
	if len(wanted) > 0 {
		check(stream.Send(&entryv1.SyncAuthorizedEntriesRequest{Ids: wanted}))
		for {
			answer, err := stream.Recv()
			check(err)
			entries = append(entries, answer.Entries...)
			if !answer.More {
				break
			}
		}
	}
	check(stream.CloseSend())
	say(object{"step": "sync", "entries": len(entries), "revisions": len(wanted)})
	return entries
}

func (n *node) sign(ctx context.Context, conn *grpc.ClientConn, entries []*types.Entry) {
	svids := svidv1.NewSVIDClient(conn)
	key, csr := newKey()
	params := []*svidv1.NewX509SVIDParams{{EntryId: entries[0].Id, Csr: csr}, {EntryId: "nope", Csr: csr}}
	answer, err := svids.BatchNewX509SVID(ctx, &svidv1.BatchNewX509SVIDRequest{Params: params})
	check(err)
	svid := makeSVID(answer.Results[0].Svid, key)
	_, _, err = x509svid.Verify(svid.Certificates, n.roots)
	check(err)
	say(object{"step": "x509", "svid": describe(svid), "unknown": answer.Results[1].Status.Code})
	bundle, err := bundlev1.NewBundleClient(conn).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	check(err)
	keys := map[string]crypto.PublicKey{}
	for _, authority := range bundle.JwtAuthorities {
		public, err := pki.ParsePKIXPublicKey(authority.PublicKey)
		check(err)
		keys[authority.KeyId] = public
	}
	jwt, err := svids.NewJWTSVID(ctx, &svidv1.NewJWTSVIDRequest{EntryId: entries[0].Id, Audience: []string{"db"}})
	check(err)
	parsed, err := jwtsvid.ParseAndValidate(jwt.Svid.Token, jwtbundle.FromJWTAuthorities(n.domain, keys), []string{"db"})
	check(err)
	say(object{"step": "jwt", "spiffeId": parsed.ID.String(), "audience": parsed.Audience})
}

// refused says the code and the reason that the server gives, as an agent reads them.
func refused(err error) object {
	state := status.Convert(err)
	for _, detail := range state.Details() {
		if denied, ok := detail.(*types.PermissionDeniedDetails); ok {
			return object{"code": state.Code().String(), "reason": denied.Reason.String()}
		}
	}
	return object{"code": state.Code().String(), "message": state.Message()}
}

// asNode does what SPIRE's agent does with its server, in its order; the admin socket plays the operator.
func asNode(ctx context.Context) {
	domain, err := spiffeid.TrustDomainFromString(*id)
	check(err)
	roots, err := x509bundle.Load(domain, *bundlePath)
	check(err)
	n := &node{domain: domain, roots: roots}
	n.attest(ctx)
	conn := n.dial()
	entries := n.sync(ctx, conn)
	if len(entries) == 0 {
		check(fmt.Errorf("no entries"))
	}
	n.sign(ctx, conn, entries)
	agents := agentv1.NewAgentClient(conn)
	_, err = agents.PostStatus(ctx, &agentv1.PostStatusRequest{})
	check(err)
	key, csr := newKey()
	renewed, err := agents.RenewAgent(ctx, &agentv1.RenewAgentRequest{Params: &agentv1.AgentX509SVIDParams{Csr: csr}})
	check(err)
	n.svid = makeSVID(renewed.Svid, key)
	next := n.dial()
	defer next.Close()
	_, err = agentv1.NewAgentClient(next).PostStatus(ctx, &agentv1.PostStatusRequest{})
	check(err)
	_, err = agents.PostStatus(ctx, &agentv1.PostStatusRequest{})
	say(object{"step": "renew", "svid": describe(n.svid), "old": refused(err)})
	conn.Close()
	n.thrownOut(ctx, next)
}

func (n *node) thrownOut(ctx context.Context, conn *grpc.ClientConn) {
	operator := localConn()
	defer operator.Close()
	self := &types.SPIFFEID{TrustDomain: n.svid.ID.TrustDomain().Name(), Path: n.svid.ID.Path()}
	_, err := agentv1.NewAgentClient(operator).BanAgent(ctx, &agentv1.BanAgentRequest{Id: self})
	check(err)
	_, err = agentv1.NewAgentClient(conn).PostStatus(ctx, &agentv1.PostStatusRequest{})
	say(object{"step": "banned", "refused": refused(err)})
	_, err = agentv1.NewAgentClient(operator).DeleteAgent(ctx, &agentv1.DeleteAgentRequest{Id: self})
	check(err)
	n.svid = nil
	again := n.dial()
	defer again.Close()
	stream, err := agentv1.NewAgentClient(again).AttestAgent(ctx)
	check(err)
	_, csr := newKey()
	check(stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{
		Params: &agentv1.AttestAgentRequest_Params{
			Data:   &types.AttestationData{Type: "join_token", Payload: []byte(*token)},
			Params: &agentv1.AgentX509SVIDParams{Csr: csr},
		},
	}}))
	_, err = stream.Recv()
	say(object{"step": "token again", "refused": refused(err)})
}
