/*
 * The manifests of deploy/kubernetes: each is of Kubernetes' schema, by npm's kubernetes-models, they name the image of
 * `npm run package`, and fit together. device-plugin.long.test.ts plays them.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { DaemonSet } from 'kubernetes-models/apps/v1/DaemonSet'
import { Role } from 'kubernetes-models/rbac.authorization.k8s.io/v1/Role'
import { RoleBinding } from 'kubernetes-models/rbac.authorization.k8s.io/v1/RoleBinding'
import { Namespace } from 'kubernetes-models/v1/Namespace'
import { Pod } from 'kubernetes-models/v1/Pod'
import { Service } from 'kubernetes-models/v1/Service'
import { ServiceAccount } from 'kubernetes-models/v1/ServiceAccount'
import { parseAllDocuments } from 'yaml'
import { repoRoot } from '../../paths.ts'

const MODELS = { DaemonSet, Namespace, Pod, Role, RoleBinding, Service, ServiceAccount }

interface Kustomization {
  readonly resources: readonly string[]
  readonly images: readonly { readonly name: string; readonly newName: string; readonly newTag: string }[]
}

const documentsOf = (...path: readonly string[]): unknown[] =>
  parseAllDocuments(readFileSync(join(repoRoot, 'deploy', ...path), 'utf8')).map(document => document.toJS())

for (const folder of ['kubernetes', 'kubernetes/pingpong'])
  test(`deploy/${folder} has manifests of Kubernetes' schema, and names their images`, () => {
    const [kustomization] = documentsOf(folder, 'kustomization.yaml') as [Kustomization]
    const files = readdirSync(join(repoRoot, 'deploy', folder)).filter(name => name.endsWith('.yaml'))
    assert.deepEqual(['kustomization.yaml', ...kustomization.resources].sort(), files.sort())
    const { version } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as { version: string }
    for (const { newName, newTag } of kustomization.images)
      assert.deepEqual([newName, newTag], ['localhost/userdma', version])
    const names = kustomization.images.map(({ name }) => name)
    for (const file of kustomization.resources)
      for (const document of documentsOf(folder, file)) {
        const { kind } = document as { kind: keyof typeof MODELS }
        assert.ok(Object.hasOwn(MODELS, kind), `${file}: ${kind}`)
        const model = new MODELS[kind](document as never) as { validate(): void }
        model.validate()
        for (const [, image] of JSON.stringify(document).matchAll(/"image":"([^"]*)"/g))
          assert.ok(names.includes(image!), `${file}: ${image}`)
      }
  })

test('the schema is checked', () => {
  const [daemonSet] = documentsOf('kubernetes', 'daemonset.yaml') as [
    { spec: { template: { spec: { hostPID: unknown } } } },
  ]
  daemonSet.spec.template.spec.hostPID = 'yes'
  assert.throws(() => new DaemonSet(daemonSet as never).validate(), /hostPID must be boolean/)
})
