package main

import (
	"context"
	"flag"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var trustDomain = flag.String("trust-domain", "", "whose bundle an endpoint serves")

// fetchBundle asks a bundle endpoint: with -id by the profile https_spiffe, its first bundle in -bundle; else by https_web.
func fetchBundle(ctx context.Context) {
	domain, err := spiffeid.TrustDomainFromString(*trustDomain)
	check(err)
	var options []federation.FetchOption
	if *id != "" {
		endpoint, err := spiffeid.FromString(*id)
		check(err)
		roots, err := x509bundle.Load(endpoint.TrustDomain(), *bundlePath)
		check(err)
		options = append(options, federation.WithSPIFFEAuth(roots, endpoint))
	}
	bundle, err := federation.FetchBundle(ctx, domain, *url, options...)
	check(err)
	sequence, _ := bundle.SequenceNumber()
	hint, _ := bundle.RefreshHint()
	say(object{
		"trustDomain": bundle.TrustDomain().Name(), "x509Authorities": len(bundle.X509Authorities()),
		"jwtAuthorities": len(bundle.JWTAuthorities()), "sequence": sequence, "refreshHint": hint.Seconds(),
	})
}
