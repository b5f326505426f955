/*
 * No code reads prose (docs/decisions/reasons.md): what code decides upon is a code or an argument, not a sentence.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import ts from 'typescript-oldest'
import { repoRoot } from '../paths.ts'

/** Methods of strings that look for a part. */
const SEARCHES = /^(?:startsWith|endsWith|includes|match|matchAll|replace|replaceAll|search|indexOf|lastIndexOf|split)$/
/** Variables and properties with a sentence, the action of a moment among them. */
const SENTENCES = /^(?:reason|message|sentence|why|action)$/
/** Parts of a finding or a wait that are sentences, or begin with a noun, if they are taken from one. */
const OF_FINDING = /^(?:text|details|advice|name)$/
const FINDINGS = /\b(?:finding|leak|found|Finding|RecordedFinding|FoundObject|wait|Wait|CheckedWait)\b/
/** Functions that write a sentence, a part of one, or a line that is printed. */
const WRITERS = /^(?:reasonText|failureText|failureLine|failureReason|causeText|inC|defectText|cqName|printable)$/
const QUICK =
  /\b(?:reason|message|sentence|why|CallError|\w+Text|failureReason|failureLine|inC|toString|text|action|[fF]inding|FoundObject|[wW]ait|cqName|printable)\b/

/** Errors of other libraries and tools, which have no code, and files of older versions. */
const EXCEPTIONS: Readonly<Record<string, string>> = {
  'src/tools/record/program/old-events.ts': 'older recordings have no other name of the request',
  'web/format.ts': 'code in a text stands between backticks',
  'src/cli/net/flows.ts': '`ip` says in words that there is no route',
  'src/host/native.ts': 'the dynamic linker says why in words',
  'src/tools/topology/links-file.ts': 'the YAML parser repeats the line in its message',
  'src/tools/topology/net-file.ts': 'the YAML parser repeats the line in its message',
}

const bare = (node: ts.Expression): ts.Expression =>
  ts.isParenthesizedExpression(node) || ts.isNonNullExpression(node) || ts.isAsExpression(node)
    ? bare(node.expression)
    : ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken
      ? bare(node.left)
      : node

type Bound = readonly [pattern: ts.BindingName, from: ts.Node | undefined]

/** What parameters, loops and declarations around or beside a node bind. */
const boundAt = (node: ts.Node): readonly Bound[] => {
  if (ts.isFunctionLike(node)) return node.parameters.map(one => [one.name, one.type])
  if (ts.isForOfStatement(node) && ts.isVariableDeclarationList(node.initializer))
    return node.initializer.declarations.map(one => [one.name, node.expression])
  if (!ts.isBlock(node) && !ts.isSourceFile(node)) return []
  return node.statements
    .filter(ts.isVariableStatement)
    .flatMap(({ declarationList }) => declarationList.declarations.map((one): Bound => [one.name, one.initializer]))
}

/** Whether a name is bound to a sentence, or to a part of a finding. */
const isBoundToSentence = (name: ts.Identifier): boolean => {
  for (let node: ts.Node = name; node !== undefined; node = node.parent)
    for (const [pattern, from] of boundAt(node)) {
      if (ts.isIdentifier(pattern) && pattern.text === name.text && from !== undefined)
        return ts.isExpression(from) && isSentence(from)
      if (!ts.isObjectBindingPattern(pattern)) continue
      const element = pattern.elements.find(({ name: own }) => own.getText() === name.text)
      if (element !== undefined)
        return OF_FINDING.test((element.propertyName ?? element.name).getText()) && FINDINGS.test(from?.getText() ?? '')
    }
  return false
}

/** Whether an expression is a sentence. The reason of a `Reason` is `reason.text()`. */
const isSentence = (expression: ts.Expression): boolean => {
  const node = bare(expression)
  if (ts.isIdentifier(node)) return SENTENCES.test(node.text) || isBoundToSentence(node)
  if (ts.isPropertyAccessExpression(node))
    return (
      SENTENCES.test(node.name.text) ||
      (OF_FINDING.test(node.name.text) && FINDINGS.test(bare(node.expression).getText()))
    )
  if (!ts.isCallExpression(node)) return false
  const called = node.expression
  if (ts.isIdentifier(called))
    return WRITERS.test(called.text) || (called.text === 'String' && isSentence(node.arguments[0]))
  return (
    ts.isPropertyAccessExpression(called) &&
    (WRITERS.test(called.name.text) || (/^(?:text|toString)$/.test(called.name.text) && isSentence(called.expression)))
  )
}

const isProse = (node: ts.Expression): boolean => ts.isStringLiteralLike(node) && / /.test(node.text)
const { EqualsEqualsEqualsToken, ExclamationEqualsEqualsToken } = ts.SyntaxKind

/** `'CQ '.length`. */
const isLengthOfText = (node: ts.Expression | undefined): boolean =>
  node !== undefined &&
  ts.isPropertyAccessExpression(node) &&
  node.name.text === 'length' &&
  ts.isStringLiteralLike(node.expression)

const isReading = (node: ts.Node): boolean => {
  if (ts.isCallExpression(node) && ts.isPropertyAccessExpression(node.expression)) {
    const { name, expression } = node.expression
    if (SEARCHES.test(name.text) || (name.text === 'slice' && isLengthOfText(node.arguments[0])))
      return isSentence(expression)
    return /^(?:test|exec)$/.test(name.text) && node.arguments.length === 1 && isSentence(node.arguments[0])
  }
  if (
    ts.isBinaryExpression(node) &&
    [EqualsEqualsEqualsToken, ExclamationEqualsEqualsToken].includes(node.operatorToken.kind)
  )
    return (isSentence(node.left) && isProse(node.right)) || (isSentence(node.right) && isProse(node.left))
  return false
}

/** A CallError of a text with values in it, which are no arguments any more. */
const isUntagged = (node: ts.Node): boolean =>
  ts.isNewExpression(node) &&
  node.expression.getText() === 'CallError' &&
  node.arguments?.[1] !== undefined &&
  ts.isTemplateExpression(node.arguments[1])

/** The places in a source that read a sentence, or refuse with an untagged one. */
const readersIn = (path: string, source: string): string[] => {
  if (!QUICK.test(source)) return []
  const file = ts.createSourceFile(path, source, ts.ScriptTarget.Latest, true)
  const found: string[] = []
  const visit = (node: ts.Node): void => {
    if (isReading(node) || isUntagged(node))
      found.push(
        `${path}:${file.getLineAndCharacterOfPosition(node.getStart()).line + 1}: ${node.getText().slice(0, 100)}`,
      )
    ts.forEachChild(node, visit)
  }
  visit(file)
  return found
}

describe('sentences', () => {
  it('are read by nobody in src/ and web/', () => {
    const paths = ['src', 'web'].flatMap(folder =>
      readdirSync(join(repoRoot, folder), { recursive: true, encoding: 'utf8' })
        .filter(name => /\.tsx?$/.test(name))
        .map(name => `${folder}/${name}`),
    )
    assert.ok(paths.length > 500)
    const readers = paths.flatMap(path => readersIn(path, readFileSync(join(repoRoot, path), 'utf8')))
    const excepted = (line: string): boolean => line.slice(0, line.indexOf(':')) in EXCEPTIONS
    assert.deepEqual(
      readers.filter(line => !excepted(line)),
      [],
    )
    for (const path of Object.keys(EXCEPTIONS))
      assert.ok(
        readers.some(line => line.startsWith(`${path}:`)),
        `${path} reads none`,
      )
  })

  for (const source of [
    "error.reason.startsWith('rc_qp.')",
    '/is used/.test(error.message)',
    "reason?.replace('entries', 'maxSendWr')",
    "error.reason.text().endsWith('in use')",
    "String(error.reason).includes('closed')",
    "failureText(failure).replace('is stale', 'is not bound')",
    "/^attribute (\\w+)/.exec(reason ?? '')",
    "error.message === 'not now'",
    "finding.text.startsWith('QP ')",
    "const kindOf = ({ text }: Finding) => text.split(' ', 1)[0]",
    "moments.find(({ action }) => action.startsWith('the queue pair '))",
    "action === 'modified to RTR'",
    'for (const { name } of finding.objects) /^QP (.*)/.exec(name)',
    `new CallError("EINVAL", \`\${cqe} is above\`)`,
    "const f = ({ wait }) => { const { id, text: told } = wait; return told.replace(/wr_id (\\d+)/, '') }",
    "services.cqName(context, handle).slice('CQ '.length)",
    'const f = line => { const text = printable(line); return SEVERITY.exec(text)?.[1] }',
  ])
    it(`are not read by ${source}`, () => assert.equal(readersIn('x.ts', source).length, 1))

  for (const source of [
    "error.reason.code === 'in-use'",
    'message.slice(0, 8)',
    "type === 'a text'",
    "new CallError('EINVAL', 'no cqe')",
    `new CallError("EINVAL", because\`\${cqe} is above\`)`,
    'names.includes(reason)',
    "const isOfCm = ({ left }: Finding) => left === 'PD'",
    "const f = ({ wait }) => { const { text } = read; return text.split(' ') }",
    'request.around.join(name)',
  ])
    it(`are written or left alone by ${source}`, () => assert.deepEqual(readersIn('x.ts', source), []))
})
