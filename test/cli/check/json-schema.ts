/*
 * A validator for JSON Schema (draft 4) with the keywords and formats that the schema of SARIF uses. It throws on
 * unknown keywords and formats, so that no rule is skipped.
 */

export type Schema = { readonly [keyword: string]: unknown }

/** Example: `$.runs[0].results: is not of type array`. */
type Problem = string

const isObject = (value: unknown): value is { readonly [name: string]: unknown } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const typeTests: Readonly<Record<string, (value: unknown) => boolean>> = {
  object: isObject,
  array: Array.isArray,
  string: value => typeof value === 'string',
  integer: Number.isInteger,
  number: value => typeof value === 'number',
  boolean: value => typeof value === 'boolean',
  null: value => value === null,
}

/** RFC 3986: characters, and `%` with two digits. */
const URI_REFERENCE = /^(?:[A-Za-z0-9\-._~:/?#[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*$/
const formatTests: Readonly<Record<string, RegExp>> = {
  uri: /^[A-Za-z][A-Za-z0-9+.-]*:\S*$/,
  'uri-reference': URI_REFERENCE,
  'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/,
}

const ANNOTATIONS = ['$schema', 'id', 'title', 'description', 'default', 'definitions']

export const problemsOf = (root: Schema, value: unknown): Problem[] => {
  const resolve = (ref: unknown): Schema => {
    const [, name] = /^#\/definitions\/(\w+)$/.exec(String(ref)) ?? []
    const found = isObject(root.definitions) && name !== undefined ? root.definitions[name] : undefined
    if (!isObject(found)) throw new Error(`the schema has no ${ref}`)
    return found
  }

  const check = (schema: Schema, path: string, value: unknown): Problem[] =>
    Object.entries(schema).flatMap(([keyword, rule]): Problem[] => {
      const unless = (isValid: boolean, problem: string): Problem[] => (isValid ? [] : [`${path}: ${problem}`])
      const checkBy = (subschema: unknown): Problem[] => check(subschema as Schema, path, value)
      const list = Array.isArray(value) ? value : []
      switch (keyword) {
        case '$ref':
          return check(resolve(rule), path, value)
        case 'type':
          return unless(
            [rule].flat().some(type => typeTests[String(type)]?.(value)),
            `is not of type ${rule}`,
          )
        case 'enum':
          return unless((rule as unknown[]).includes(value), `${JSON.stringify(value)} is not one of ${rule}`)
        case 'required':
          return isObject(value)
            ? (rule as string[]).flatMap(name => unless(Object.hasOwn(value, name), `lacks ${name}`))
            : []
        case 'properties':
          return isObject(value)
            ? Object.entries(rule as Record<string, Schema>).flatMap(([name, subschema]) =>
                Object.hasOwn(value, name) ? check(subschema, `${path}.${name}`, value[name]) : [],
              )
            : []
        case 'additionalProperties': {
          if (!isObject(value) || rule === true) return []
          const known = isObject(schema.properties) ? schema.properties : {}
          const others = Object.keys(value).filter(name => !Object.hasOwn(known, name))
          return others.flatMap(name =>
            rule === false ? [`${path}: has unknown ${name}`] : check(rule as Schema, `${path}.${name}`, value[name]),
          )
        }
        case 'items':
          return list.flatMap((item, i) => check(rule as Schema, `${path}[${i}]`, item))
        case 'minItems':
          return unless(!Array.isArray(value) || list.length >= Number(rule), `has fewer than ${rule} items`)
        case 'uniqueItems':
          return unless(
            rule !== true || new Set(list.map(item => JSON.stringify(item))).size === list.length,
            'has equal items',
          )
        case 'minimum':
          return unless(typeof value !== 'number' || value >= Number(rule), `${value} is below ${rule}`)
        case 'maximum':
          return unless(typeof value !== 'number' || value <= Number(rule), `${value} is above ${rule}`)
        case 'pattern':
          return unless(typeof value !== 'string' || new RegExp(String(rule)).test(value), `${value} is not ${rule}`)
        case 'format': {
          const test = formatTests[String(rule)]
          if (test === undefined) throw new Error(`unknown format ${rule}`)
          return unless(typeof value !== 'string' || test.test(value), `${value} is not a ${rule}`)
        }
        case 'anyOf':
          return unless(
            (rule as unknown[]).some(subschema => checkBy(subschema).length === 0),
            'fits none of anyOf',
          )
        case 'oneOf':
          return unless(
            (rule as unknown[]).filter(subschema => checkBy(subschema).length === 0).length === 1,
            'does not fit exactly one of oneOf',
          )
        default:
          if (ANNOTATIONS.includes(keyword)) return []
          throw new Error(`unknown keyword ${keyword} of the schema`)
      }
    })
  return check(root, '$', value)
}
