#!/usr/bin/env node
// SPIRE's command line, for scripts and habits: `spire-server` with everyhop behind it. Put this folder first on the PATH.
import { launch } from "./launch.js";

await launch("spire-server", "cli/spire/server-main");
