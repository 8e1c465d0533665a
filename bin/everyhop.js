#!/usr/bin/env node
// The command. launch.js finds a runtime for it.
import { launch } from "./launch.js";

await launch("everyhop", "cli/main");
