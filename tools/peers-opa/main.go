// OPA as a library, for the policy benchmark: prints the median nanoseconds of processor time of one prepared query.
//
//	opa-decide rules.rego '{"path": "/"}' ROUNDS MILLISECONDS
//
// Processor time is the process's, so that what the garbage collector does for a decision counts.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func used() int64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func round(decide func() bool, limit time.Duration) int64 {
	calls, before, until := int64(0), used(), time.Now().Add(limit)
	for time.Now().Before(until) {
		for range 100 {
			decide()
		}
		calls += 100
	}
	return (used() - before) / calls
}

func main() {
	if len(os.Args) != 5 {
		check(fmt.Errorf("usage: opa-decide rules.rego INPUT ROUNDS MILLISECONDS"))
	}
	module, err := os.ReadFile(os.Args[1])
	check(err)
	var input, other map[string]any
	check(json.Unmarshal([]byte(os.Args[2]), &input))
	check(json.Unmarshal([]byte(`{"path": "/nothing"}`), &other))
	rounds, err := strconv.Atoi(os.Args[3])
	check(err)
	milliseconds, err := strconv.Atoi(os.Args[4])
	check(err)

	ctx := context.Background()
	query, err := rego.New(rego.Query("data.authz.allow"), rego.Module("rules.rego", string(module))).PrepareForEval(ctx)
	check(err)
	ask := func(about map[string]any) bool {
		answer, err := query.Eval(ctx, rego.EvalInput(about))
		check(err)
		return answer.Allowed()
	}
	if !ask(input) || ask(other) {
		check(fmt.Errorf("OPA does not answer what is measured"))
	}
	limit := time.Duration(milliseconds) * time.Millisecond
	decide := func() bool { return ask(input) }
	round(decide, limit)
	costs := make([]int64, rounds)
	for at := range costs {
		costs[at] = round(decide, limit)
	}
	slices.Sort(costs)
	fmt.Println(costs[rounds/2])
}
