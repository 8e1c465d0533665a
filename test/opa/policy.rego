# An authorizer in Rego, as OPA's Envoy plugin takes it. policy.tar.gz is this file and data.json, compiled to WebAssembly:
#   opa build -t wasm -e envoy/authz/allow policy.rego data.json -o policy.tar.gz
# (made with OPA 1.7.1, whose library does the same: v1/compile, target wasm).
package envoy.authz

default allow := {"allowed": false, "http_status": 403, "body": "not an admin"}

http := input.attributes.request.http

allow if {
	http.method == "GET"
	input.parsed_path[0] == "free"
}

allow := {"allowed": true, "headers": {"x-role": "admin"}, "response_headers_to_add": {"x-checked-by": "opa"}} if {
	http.headers["x-user"] == data.admins[_]
	input.attributes.source.principal == "spiffe://example.com/ns/prod/sa/caller"
}
