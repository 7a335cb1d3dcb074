/* Types of generate-docs.mjs, which is plain JavaScript because npm runs it without a build of the tests. */

export interface DocsCheck {
  readonly id: string;
  readonly title: string;
  readonly looks: string;
  readonly needs: readonly string[];
  readonly causes: Readonly<
    Record<string, { readonly status: "warn" | "fail"; readonly code: string | null; readonly meaning: string; readonly mend: string }>
  >;
}

export interface DocsSource {
  readonly calls: readonly object[];
  readonly mechanisms: readonly object[];
  readonly attributes: readonly { readonly type: number; readonly kind: string }[];
  readonly checks: {
    readonly workstation: readonly DocsCheck[];
    readonly way: readonly DocsCheck[];
    readonly choria: readonly DocsCheck[];
    readonly bastion: readonly DocsCheck[];
    readonly common: DocsCheck["causes"];
  };
  readonly errors: Readonly<Record<string, { readonly exitCode: number; readonly meaning: string }>>;
}

export const PAGES: readonly string[];
export function checksOfCode(name: string, checks: readonly Pick<DocsCheck, "id" | "causes">[]): string[];
export function renderPage(text: string, source: DocsSource): string;
