/*
 * What scenarios may name of a net.
 */
import type { ScenarioHost, ScenarioNet } from '../../tools/topology/play-file.ts'
import { routerLinks } from './outages.ts'
import { hasDaemon, type Plan } from './plan.ts'

export const scenarioNet = ({ hosts, fabrics }: Plan): ScenarioNet => ({
  cables: fabrics.flatMap(({ links }) => links),
  routers: hosts.flatMap(({ name, forwards }) => (forwards ? name : [])),
  paths: routerLinks({ hosts }),
  hosts: hosts.map(
    (host): ScenarioHost => ({
      name: host.name,
      hasDaemon: hasDaemon(host),
      devices: host.interfaces.flatMap(({ device }) => device ?? []),
      interfaces: host.interfaces.map(({ name }) => name),
      hasFabric: host.layer === 'infiniband',
    }),
  ),
})
