/*
 * What runs without failures have in common. Threads and times decide what a program does beside: it polls once more,
 * or repeats what was late. What only some runs show is no point, so that a walk has the same points again.
 */

import type { WalkRun } from './outcome.ts'
import type { RoleCount } from './points.ts'
import type { WalkSite } from './site.ts'

/** Runs without failures if the first two differ, and in how many of them a site must be. */
export const CLEAN_RUNS = 3
const MAJORITY = 2

const keyOf = ({ host, role, phase, target, device, class: cls, name, site }: WalkSite): string =>
  [host, role, phase, target, device, cls, name, site].join(' ')

const presentOf = ({ counts }: WalkRun): readonly string[] =>
  counts.filter(({ count }) => count > 0).map(({ host, role }) => `${host} ${role}`)

/** Whether two runs came to the same sites, and received packets of the same roles. */
export const isAlike = (one: WalkRun, other: WalkRun): boolean => {
  const keysOf = (run: WalkRun): string => [...run.sites.map(keyOf), ...presentOf(run)].sort().join('\n')
  return keysOf(one) === keysOf(other)
}

/** Processes by their role: which of two makes the first call differs from run to run. */
const numbered = (sites: readonly WalkSite[]): readonly WalkSite[] => {
  const rolesOf = (host: string): readonly string[] =>
    [...new Set(sites.filter(site => site.host === host).map(({ role }) => role))].sort()
  const hosts = new Map([...new Set(sites.map(({ host }) => host))].map(host => [host, rolesOf(host)]))
  return sites
    .map(site => ({ ...site, process: hosts.get(site.host)!.indexOf(site.role) + 1 }))
    .sort((a, b) => (a.host === b.host ? a.process - b.process : a.host < b.host ? -1 : 1))
}

/**
 * One run that stands for all: sites in the order of their keys, counts that each run has, and what any of them said.
 */
export const commonRun = (runs: readonly [WalkRun, ...WalkRun[]]): { readonly run: WalkRun; readonly left: number } => {
  const [first] = runs
  const needed = Math.min(MAJORITY, runs.length)
  const byKey = new Map<string, WalkSite[]>()
  for (const { sites } of runs)
    for (const site of sites) byKey.set(keyOf(site), [...(byKey.get(keyOf(site)) ?? []), site])
  const kept = [...byKey].filter(([, all]) => all.length >= needed)
  const sites = kept.map(([, all]): WalkSite => {
    const isFirst = all.filter(site => site.first === 1).length >= needed
    const least = Math.min(...all.map(({ count }) => count))
    const asked = Math.min(...all.map(one => one.asked ?? 0))
    return { ...all[0]!, count: least, asked, first: isFirst ? 1 : Math.max(2, all[0]!.first) }
  })
  const counts = first.counts.map(({ host, role }): RoleCount => {
    const all = runs.map(run => run.counts.find(one => one.host === host && one.role === role)?.count ?? 0)
    const present = all.filter(count => count > 0)
    return { host, role, count: present.length >= needed ? Math.min(...present) : 0 }
  })
  const joined = (read: (run: WalkRun) => string): string => runs.map(read).join('\n')
  const run: WalkRun = {
    ...first,
    sites: numbered(sites),
    counts,
    findings: runs.flatMap(({ findings }) => findings),
    left: runs.flatMap(({ left }) => left),
    facts: {
      ...first.facts,
      told: runs.flatMap(({ facts }) => facts.told),
      retries: Math.max(...runs.map(({ facts }) => facts.retries)),
      relapses: runs.flatMap(({ facts }) => facts.relapses),
    },
    result: {
      ...first.result,
      stdout: joined(({ result }) => result.stdout),
      stderr: joined(({ result }) => result.stderr),
      duration: Math.max(...runs.map(({ result }) => result.duration)),
    },
  }
  return { run, left: byKey.size - kept.length }
}
